"""What a result depends on in addition to the code: versions and hardware."""

import contextlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from looklisten.system.devices import choose_device, choose_precision
from looklisten.system.processes import cpu_count


def environment() -> dict[str, Any]:
    """Versions and hardware of this machine, by name."""
    import torch

    device = choose_device()
    return {
        "looklisten": version("looklisten"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": version("av"),
        "device": f"{device.value} ({device.reason})",
        "precision": choose_precision(device.value).value,
        "cores": cpu_count(),
        "machine": processor_name(),
    }


def processor_name() -> str:
    """The processor's model, as the system names it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
