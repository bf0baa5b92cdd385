"""What this installation can do, and what is missing for which verb.

It looks and computes nothing, and needs no optional package.
"""

import importlib
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from looklisten.config import SIDES
from looklisten.system.devices import choose_device, choose_precision
from looklisten.system.processes import cpu_count

CodecMode = Literal["r", "w"]
"""Decoders are for reading, encoders for writing."""

GIGABYTE = 10**9
MIN_FREE_DISK_BYTES = 1 * GIGABYTE

CORE_PACKAGES = ("torch", "av", "numpy", "pyarrow", "soxr", "simplejpeg")
"""Packages with compiled parts, which can be installed and still fail to load."""

_SINGLE_DECODERS = (
    "h264",
    "hevc",
    "vp8",
    "vp9",
    "mpeg4",
    "mpeg2video",
    "mjpeg",
    "prores",
    "vvc",
    "aac",
    "mp3",
    "opus",
    "vorbis",
    "ac3",
    "eac3",
    "flac",
    "pcm_s16le",
    "amrnb",
)
DECODERS: dict[str, tuple[str, ...]] = {name: (name,) for name in _SINGLE_DECODERS}
"""Common formats of videos, and the decoders of FFmpeg of which one is enough."""
# FFmpeg's own `av1` is left out: it decodes only with a graphics card.
DECODERS["av1"] = ("libdav1d", "libaom-av1", "libgav1")
DECODERS["dts"] = ("dca",)

ENCODERS = ("libx264", "aac")
"""The encoders that `synth` uses."""

NEEDED_CODECS = {
    "h264 decoder": "prepare and localize cannot read most MP4 files",
    "aac decoder": "prepare and localize cannot read the sound of most MP4 files",
    "libx264 encoder": "synth and demo cannot write videos",
    "aac encoder": "synth and demo cannot write the sound of their videos",
}
"""Codecs that are needed, and the consequence if one is missing."""


@dataclass(frozen=True)
class OptionalPackage:
    """A package that adds abilities and that no verb needs."""

    name: str
    purpose: str
    installation: str


OPTIONAL_PACKAGES = (
    OptionalPackage("ray", "prepare and index on a Ray cluster", "pip install 'looklisten[ray]'"),
    OptionalPackage(
        "s3fs", "videos and shards at s3:// addresses", "pip install 'looklisten[remote]'"
    ),
    OptionalPackage("aiohttp", "videos at https:// addresses", "pip install 'looklisten[remote]'"),
    OptionalPackage(
        "huggingface_hub",
        "networks from and to the Hugging Face Hub",
        "pip install 'looklisten[hub]'",
    ),
    OptionalPackage("onnx", "export --format onnx", "pip install 'looklisten[onnx]'"),
    OptionalPackage(
        "onnxruntime", "the check of export --format onnx", "pip install 'looklisten[onnx]'"
    ),
    OptionalPackage("onnxscript", "export --format onnx", "pip install 'looklisten[onnx]'"),
    OptionalPackage("h5py", "weight files of OpenL3", "pip install 'looklisten[openl3]'"),
    OptionalPackage(
        "transformers", "models of the Hugging Face Hub (hf:)", "pip install 'looklisten[hf]'"
    ),
    OptionalPackage("lancedb", "indexes of the store lance", "pip install 'looklisten[search]'"),
    OptionalPackage("fastapi", "serve", "pip install 'looklisten[serve]'"),
    OptionalPackage("uvicorn", "serve", "pip install 'looklisten[serve]'"),
    OptionalPackage("python-multipart", "uploads to serve", "pip install 'looklisten[serve]'"),
    OptionalPackage("prometheus_client", "metrics of serve", "pip install 'looklisten[serve]'"),
    OptionalPackage("httpx", "the client of serve", "pip install 'looklisten[serve]'"),
    OptionalPackage("tensorboard", "curves of a run in a browser", "comes with looklisten"),
)


def has_codec(name: str, mode: CodecMode) -> bool:
    """Whether FFmpeg has a decoder (mode "r") or an encoder ("w") of this name."""
    from av.codec import Codec

    try:
        Codec(name, mode)
    except ValueError:
        return False
    return True


def free_bytes(folder: Path) -> int | None:
    """The free space of the disk that a folder is on."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


@dataclass(frozen=True)
class Installation:
    """How `doctor` asks the machine; by default it asks this one."""

    import_package: Callable[[str], object] = importlib.import_module
    version_of: Callable[[str], str] = version
    """Raises PackageNotFoundError for a package that is not installed."""
    has_codec: Callable[[str, CodecMode], bool] = has_codec
    free_bytes: Callable[[Path], int | None] = free_bytes

    def version_or_none(self, package: str) -> str | None:
        """The version of a package; None if it is not installed."""
        try:
            return self.version_of(package)
        except PackageNotFoundError:
            return None


THIS_INSTALLATION = Installation()


def doctor(installation: Installation = THIS_INSTALLATION) -> dict[str, Any]:
    """Versions, device, machine, codecs and optional packages.

    `ready` is whether every verb has what it needs. `missing` has one sentence for each problem.
    A value that cannot be found out is None.
    """
    # First, because FFmpeg and the device can be asked only if PyAV and PyTorch load.
    broken = _broken_packages(installation)
    has_av = "av" not in broken
    codecs = installation if has_av else replace(installation, has_codec=lambda *_: False)
    decoders = _present_and_missing(DECODERS, "r", codecs)
    encoders = _present_and_missing({name: (name,) for name in ENCODERS}, "w", codecs)
    disk = {
        "here": installation.free_bytes(Path.cwd()),
        "temporary": installation.free_bytes(Path(tempfile.gettempdir())),
    }
    missing = _missing_packages(broken)
    if has_av:
        # Without PyAV all codecs are missing, which its own sentence says already.
        missing += _missing_codecs(decoders, encoders)
    missing += _missing_disk_space(disk["here"])

    version_of = installation.version_or_none
    versions = {"looklisten": version_of("looklisten"), "python": platform.python_version()}
    versions |= {name: version_of(name) for name in CORE_PACKAGES}
    return {
        "ready": not missing,
        "missing": missing,
        "versions": versions,
        "ffmpeg": _ffmpeg_versions() if has_av else {},
        **_device_and_precision("torch" not in broken),
        "cores": cpu_count(),
        "memory_gigabytes": _in_gigabytes(memory_bytes()),
        "disk_free_gigabytes": _in_gigabytes(disk),
        "decoders": decoders,
        "encoders": encoders,
        "start": _towers_of_start() if not broken else [],
        "optional_packages": [_describe(package, installation) for package in OPTIONAL_PACKAGES],
    }


def _broken_packages(installation: Installation) -> dict[str, str]:
    """The core packages that cannot be imported, each with the first line of its error."""
    reasons = {}
    for name in CORE_PACKAGES:
        try:
            installation.import_package(name)
        except Exception as error:  # a compiled part that does not load can raise anything
            reasons[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return reasons


def _missing_packages(broken: dict[str, str]) -> list[str]:
    sentences = []
    for name, reason in broken.items():
        sentences.append(
            f"{name} cannot be imported ({reason}), so almost nothing works; install it again: "
            f"pip install --force-reinstall {name}"
        )
    return sentences


def _present_and_missing(
    formats: dict[str, tuple[str, ...]], mode: CodecMode, installation: Installation
) -> dict[str, list[str]]:
    """Which formats have at least one of their codecs."""
    present: list[str] = []
    missing: list[str] = []
    for name, codecs in formats.items():
        is_present = any(installation.has_codec(codec, mode) for codec in codecs)
        (present if is_present else missing).append(name)
    return {"present": present, "missing": missing}


def _missing_codecs(decoders: dict[str, list[str]], encoders: dict[str, list[str]]) -> list[str]:
    absent = [f"{name} decoder" for name in decoders["missing"]]
    absent += [f"{name} encoder" for name in encoders["missing"]]
    sentences = []
    for codec in absent:
        if codec in NEEDED_CODECS:
            sentences.append(
                f"this FFmpeg has no {codec}, so {NEEDED_CODECS[codec]}; PyAV's own wheel has it: "
                "pip install --force-reinstall --only-binary av av"
            )
    return sentences


def _missing_disk_space(free_bytes: int | None) -> list[str]:
    if free_bytes is None or free_bytes >= MIN_FREE_DISK_BYTES:
        return []
    return [
        f"only {_gigabytes(free_bytes)} GB are free in {Path.cwd()}; prepare and train need more, "
        "free some space or work in another folder"
    ]


def _device_and_precision(has_torch: bool) -> dict[str, Any]:
    """Device and precision that verbs would use, each with its reason."""
    if not has_torch:
        return {"device": None, "precision": None}
    device = choose_device()
    return {"device": asdict(device), "precision": asdict(choose_precision(device.value))}


def _towers_of_start() -> list[dict[str, Any]]:
    """The published files that the network `start` reads, and whether they are here already."""
    from looklisten.model.backbones import find_backbone
    from looklisten.model.shipped import START, open_shipped
    from looklisten.system.published_files import is_local

    towers = []
    config = open_shipped(START).config.model
    for side in SIDES:
        name = config.backbone_of(side)
        published = find_backbone(name).published
        assert published is not None
        file = published.file
        mirror = os.environ.get(file.mirror_variable)
        state = f"will be downloaded once, from {mirror or file.address}"
        if is_local(file):
            state = "is here"
        elif mirror and "://" not in mirror:
            state = f"is missing in {mirror}"
        towers.append({"tower": name, "megabytes": file.size_mb, "state": state})
    return towers


def _ffmpeg_versions() -> dict[str, str]:
    import av

    return {name: ".".join(map(str, numbers)) for name, numbers in av.library_versions.items()}


def _describe(package: OptionalPackage, installation: Installation) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": installation.version_or_none(package.name),
        "purpose": package.purpose,
        "installation": package.installation,
    }


def memory_bytes(meminfo: Path = Path("/proc/meminfo")) -> dict[str, int | None]:
    """Memory of this machine: all of it, and what is available for new work."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return {"total": None, "available": None}
    sizes: dict[str, int] = {}
    for line in lines:
        name, _, size = line.partition(":")
        if size.split():
            # The file counts in kibibytes, although it writes kB.
            sizes[name] = int(size.split()[0]) * 2**10
    return {"total": sizes.get("MemTotal"), "available": sizes.get("MemAvailable")}


def _in_gigabytes(sizes: dict[str, int | None]) -> dict[str, float | None]:
    return {name: _gigabytes(size) for name, size in sizes.items()}


def _gigabytes(size: int | None) -> float | None:
    return None if size is None else round(size / GIGABYTE, 1)
