"""What the machine is and how work runs on it: device, precision, worker processes, progress, files that are whole or absent.

Automatic choices come back with their reason, so that whoever asked can say it. Nothing here prints.
"""

import contextlib
import ctypes
import errno
import functools
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import joblib

from looklisten.errors import ConfigError
from looklisten.names import shown

if TYPE_CHECKING:
    import torch

IDLE_WORKER_SECONDS = 15
NO_HOME = "this user has no home folder; set LOOKLISTEN_CACHE to a folder that outlasts a restart"
"""Why the cache lies among temporary files."""
ABANDONED_SECONDS = 86_400
"""Scratch of another machine that is older than this belongs to nobody."""
_ASIDE = ".aside-"
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What Linux names processors by that multiply bfloat16; the last is ARM's."""
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of mallopt(3)."""

Network = TypeVar("Network", bound="torch.nn.Module")
Item = TypeVar("Item")
Result = TypeVar("Result")


@runtime_checkable
class Progress(Protocol):
    """Told how far a long task is: `done` of `total` units, with facts worth showing beside (loss, rate)."""

    def __call__(self, done: int, total: int, /, **facts: str) -> None: ...


def silent(done: int, total: int, /, **facts: str) -> None:
    """The `Progress` that says nothing."""


@dataclass(frozen=True)
class Choice:
    """A decision and why it was taken."""

    value: str
    reason: str


def is_first_process() -> bool:
    """Whether this is the one of `torchrun`'s processes that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def choose_device(wanted: str = "auto", number: int = 0) -> Choice:
    """The device to compute on: `wanted`, or the first of CUDA, Apple's MPS and the CPU that is there.

    `number` says which of several GPUs is this process's.
    """
    import torch

    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"the device {wanted} was asked for, and PyTorch finds no NVIDIA GPU; leave the device away, or ask for cpu")
    if wanted not in ("auto", "cuda"):
        return Choice(wanted, "asked for")
    if torch.cuda.is_available():
        return Choice(f"cuda:{number}" if number else "cuda", torch.cuda.get_device_name(number))
    if torch.backends.mps.is_available():
        return Choice("mps", "Apple GPU")
    return Choice("cpu", f"no GPU found, {torch.get_num_threads()} threads")


def choose_precision(device: str, wanted: str = "auto") -> Choice:
    """`bfloat16` where the device multiplies it in hardware, else `float32`."""
    import torch

    if wanted != "auto":
        return Choice(wanted, "asked for")
    if device.startswith("cuda"):
        fast = torch.cuda.get_device_capability()[0] >= 8
        return Choice("bfloat16" if fast else "float32", "tensor cores multiply it" if fast else "older than Ampere")
    if device == "cpu" and _cpu_multiplies_bfloat16():
        return Choice("bfloat16", "the processor multiplies it")
    return Choice("float32", "no bfloat16 arithmetic here")


def _cpu_multiplies_bfloat16() -> bool:
    try:
        return names_bfloat16(Path("/proc/cpuinfo").read_text())
    except OSError:
        return False


def names_bfloat16(cpuinfo: str) -> bool:
    """Whether a processor with these lines of /proc/cpuinfo multiplies bfloat16: `flags` on x86, `Features` on ARM."""
    for line in cpuinfo.splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features") and BFLOAT16_FLAGS & set(values.split()):
            return True
    return False


def to_device(network: "Network", device: str) -> "Network":
    """`network` on the device, channels-last: the layout in which convolution libraries are fastest, on CPU and GPU."""
    import torch

    network.to(device)
    if device != "mps":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


@functools.cache
def compute_alone_after_fork() -> None:
    """From now on a process that is forked from this one computes with one thread; saying it twice changes nothing.

    PyTorch's threads do not come along into a forked process, and its first parallel step would wait for them forever.
    """
    if not hasattr(os, "register_at_fork"):
        return
    import torch

    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def listed_home() -> Path | None:
    """The home folder in the system's list of users; None where it lists none, or one that is not there."""
    try:
        import pwd

        listed = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except (ImportError, KeyError):
        return None
    return listed if listed.is_dir() else None


def choose_cache(
    environ: Mapping[str, str] | None = None, system: str = sys.platform, home: Callable[[], Path | None] = listed_home
) -> Choice:
    """The folder for files that can be made or fetched again, and why it is this one. Nothing is created.

    `LOOKLISTEN_CACHE` names it. Else it is `looklisten` in the user's cache folder: `XDG_CACHE_HOME`, or the usual one of
    the system in the user's home, which the environment names, or else `home`. A user without a home, such as one of a
    container, gets a folder of the system's temporary files.
    """
    environ = os.environ if environ is None else environ
    if own := environ.get("LOOKLISTEN_CACHE"):
        return Choice(own, "LOOKLISTEN_CACHE names it")
    for variable in ("XDG_CACHE_HOME", *(("LOCALAPPDATA",) if system == "win32" else ())):
        if above := environ.get(variable):
            return Choice(str(Path(above) / "looklisten"), f"{variable} names the folder above")
    named = environ.get("USERPROFILE" if system == "win32" else "HOME")
    found = Path(named) if named else home()
    if found is None:
        user = str(os.getuid()) if hasattr(os, "getuid") else environ.get("USERNAME", "user")
        return Choice(str(Path(tempfile.gettempdir()) / f"looklisten-{user}"), NO_HOME)
    below = {"darwin": "Library/Caches", "win32": "AppData/Local"}.get(system, ".cache")
    return Choice(str(found / below / "looklisten"), "the user's cache folder")


def cache_folder(name: str = "") -> Path:
    """The folder `name` in the one of `choose_cache`. Says once, by `logging`, when that lies among temporary files."""
    chosen = choose_cache()
    if chosen.reason == NO_HOME:
        _warn_once(f"files are kept in {chosen.value}: {chosen.reason}")
    return Path(chosen.value) / name


@functools.cache
def _warn_once(message: str) -> None:
    logging.getLogger(__name__).warning(message)


def writable_cache(name: str) -> Path:
    """`cache_folder(name)`, made if it is not there. Raises ConfigError, one sentence, when nothing can be written there."""
    folder = cache_folder(name)
    try:
        # Among temporary files others could look in, and so could they before us.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"nothing can be written into the cache {folder} ({error.strerror}); set LOOKLISTEN_CACHE to a folder of your own"
        ) from None
    return folder


def keep_freed_memory() -> None:
    """Tell glibc's allocator to keep what is freed for what comes next, and not to give it back to the system.

    Each step of a network frees its maps and takes as many again. Pages that go to the system and come back are filled with zeros
    first, one fault each: up to a third of a training step on a CPU (`benchmarks/allocator.py`). It holds for the whole process, so it
    is for programs to call and not for functions of a library. Without glibc nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def cpu_count() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_unordered(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None = None,
    progress: Progress = silent,
) -> Iterator[Result]:
    """`function` of each item, in worker processes, in the order they finish.

    The first exception of a worker stops the work and is raised here. `workers=1` stays in this process.
    """
    count = min(workers or cpu_count(), max(len(items), 1))
    if count == 1:
        results: Iterator[Result] = map(function, items)
    else:
        # joblib's own process pool needs no `if __name__ == "__main__"` in the caller's script. Workers that a killed parent
        # leaves behind end by themselves when nothing comes for a while.
        with joblib.parallel_config("loky", idle_worker_timeout=IDLE_WORKER_SECONDS):
            parallel = joblib.Parallel(n_jobs=count, return_as="generator_unordered", batch_size=1, pre_dispatch=2 * count)
            results = parallel(joblib.delayed(function)(item) for item in items)
    for done, result in enumerate(results, 1):
        progress(done, len(items))
        yield result


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A scratch path in the same folder that becomes `path` when the block ends well and vanishes when it does not.

    The bytes are on the disk before the name is: after a crash `path` is whole or absent. Works for files and folders.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch_dir = Path(tempfile.mkdtemp(prefix=f"{_ASIDE}{_host()}-{os.getpid()}-", dir=path.parent))
    scratch = scratch_dir / path.name
    try:
        yield scratch
        for file in [scratch, *scratch.rglob("*")] if scratch.is_dir() else [scratch]:
            _flush_to_disk(file)
        if path.is_dir() and scratch.is_dir():
            shutil.rmtree(path)  # a file never takes the place of a folder
        scratch.replace(path)
        _flush_to_disk(path.parent)
    finally:
        shutil.rmtree(scratch_dir, ignore_errors=True)


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_aside(folder: Path) -> None:
    """Remove what killed runs left in `folder`: scratch of `written_aside` that was never renamed.

    What a running process of this machine writes stays, and so does what another machine wrote within a day.
    """
    for scratch in folder.glob(f"{_ASIDE}*"):
        host, _, rest = scratch.name.removeprefix(_ASIDE).partition("-")
        with contextlib.suppress(OSError, ValueError):
            old = time.time() - scratch.stat().st_mtime > ABANDONED_SECONDS
            if old or (host == _host() and not _is_running(int(rest.partition("-")[0]))):
                shutil.rmtree(scratch, ignore_errors=True)


def _host() -> str:
    return platform.node().replace("-", "_")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_json(path: Path, value: object) -> None:
    """`value` as indented JSON, whole or absent, the same bytes for the same value."""
    with written_aside(path) as scratch:
        scratch.write_bytes(json_bytes(value, indent=1))


def json_bytes(value: object, indent: int | None = None) -> bytes:
    """`value` as JSON with a line feed at its end; a lone surrogate, which UTF-8 has not, is written as an escape."""
    return (json.dumps(value, indent=indent, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def check_writable(folder: Path) -> None:
    """See that files can be written into `folder`, which need not be there yet. Leaves nothing behind.

    Meant to be called before long work. Raises ConfigError: a file is in the way, no permission, a read-only file system, a name
    that no file can have. A full disk stays an OSError.
    """
    try:
        there = folder.absolute()
        while not os.path.lexists(there):
            there = there.parent
        if not there.is_dir():
            link = "a broken link" if there.is_symlink() and not there.exists() else "a file"
            raise ConfigError(f"{shown(folder)} cannot be a folder: {shown(there)} is {link}; choose another folder")
        trial = Path(tempfile.mkdtemp(prefix=f"{_ASIDE}{_host()}-{os.getpid()}-", dir=there))
        try:
            missing = folder.absolute().relative_to(there)
            (trial / missing).mkdir(parents=True, exist_ok=True)  # shows whether the names can be
            (trial / missing / "trial").write_bytes(b"1")
        finally:
            shutil.rmtree(trial, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(f"{shown(folder)} cannot be written to: {error.strerror}; choose another folder") from None
    except ValueError:
        raise ConfigError(f"{shown(folder)} cannot be a folder: its name holds a NUL character; choose another folder") from None


def environment() -> dict[str, Any]:
    """What a result depends on beside the code: versions and hardware."""
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
