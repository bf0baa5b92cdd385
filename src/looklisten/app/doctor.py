"""What this installation can do, and what is missing for what. Looks, computes nothing, needs
nothing that is optional.
"""

import importlib
import platform
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from looklisten.system.devices import choose_device, choose_precision
from looklisten.system.processes import cpu_count

Mode = Literal["r", "w"]

GIGABYTE = 10**9
MIN_FREE_DISK_BYTES = 1 * GIGABYTE

CORE = ("torch", "av", "numpy", "pyarrow", "soxr", "simplejpeg")
"""Packages with compiled parts, which may be installed and yet not load."""

_PLAIN = "h264 hevc vp8 vp9 mpeg4 mpeg2video mjpeg prores vvc aac mp3 opus vorbis ac3 eac3 flac pcm_s16le amrnb"
DECODERS = {name: (name,) for name in _PLAIN.split()} | {
    "av1": (
        "libdav1d",
        "libaom-av1",
        "libgav1",
    ),  # FFmpeg's own `av1` decodes on a graphics card alone
    "dts": ("dca",),
}
"""What videos in the wild are made with, and the decoders of FFmpeg of which any one will do."""

ENCODERS = ("libx264", "aac")
"""What `synth` writes."""

NEEDED = {
    "h264 decoder": "prepare and localize cannot read most MP4 files",
    "aac decoder": "prepare and localize cannot hear most MP4 files",
    "libx264 encoder": "synth and demo cannot make videos",
    "aac encoder": "synth and demo cannot give their videos sound",
}


@dataclass(frozen=True)
class Extra:
    """A package that some things can use and nothing needs."""

    name: str
    what_for: str
    how_to_get: str


EXTRAS = (
    Extra("ray", "prepare on a Ray cluster", "pip install 'looklisten[ray]'"),
    Extra("s3fs", "videos and shards at s3:// addresses", "pip install 'looklisten[remote]'"),
    Extra("aiohttp", "videos at https:// addresses", "pip install 'looklisten[remote]'"),
    Extra(
        "huggingface_hub",
        "networks from and to the Hugging Face Hub",
        "pip install 'looklisten[hub]'",
    ),
    Extra("onnx", "export --format onnx", "pip install 'looklisten[onnx]'"),
    Extra(
        "onnxruntime",
        "export --format onnx, which checks what it writes",
        "pip install 'looklisten[onnx]'",
    ),
    Extra("onnxscript", "export --format onnx", "pip install 'looklisten[onnx]'"),
    Extra("h5py", "weight files of OpenL3", "pip install 'looklisten[openl3]'"),
    Extra("tensorboard", "the curves of a run in a browser", "comes with looklisten"),
)


def doctor() -> dict[str, Any]:
    """Versions, device, machine, codecs and extras; `ready` is whether every verb has what it
    needs, `missing` says what lacks.

    What cannot be known here is None.
    """
    broken = {name: reason for name in CORE if (reason := _why_broken(name))}
    decoders = _codecs(DECODERS, "r", broken)
    encoders = _codecs({name: (name,) for name in ENCODERS}, "w", broken)
    disk = {"here": _free_bytes(Path.cwd()), "temporary": _free_bytes(Path(tempfile.gettempdir()))}
    missing = [
        *_missing_packages(broken),
        *([] if "av" in broken else _missing_codecs(decoders, encoders)),
        *_missing_disk(disk["here"]),
    ]
    return {
        "ready": not missing,
        "missing": missing,
        "versions": {"looklisten": _version("looklisten"), "python": platform.python_version()}
        | {name: _version(name) for name in CORE},
        "ffmpeg": {} if "av" in broken else _ffmpeg_versions(),
        **_computing(broken),
        "cores": cpu_count(),
        "memory_gigabytes": {name: _gigabytes(size) for name, size in memory_bytes().items()},
        "disk_free_gigabytes": {name: _gigabytes(size) for name, size in disk.items()},
        "decoders": decoders,
        "encoders": encoders,
        "extras": [
            {"name": extra.name, "version": _version(extra.name)} | asdict(extra)
            for extra in EXTRAS
        ],
    }


def _why_broken(package: str) -> str:
    """What the package says when it cannot be imported; nothing when it can."""
    try:
        importlib.import_module(package)
    except Exception as error:  # a compiled part that does not load may raise anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def _missing_packages(broken: dict[str, str]) -> list[str]:
    return [
        f"{name} cannot be imported ({reason}), so nearly nothing works; install it again: pip install --force-reinstall {name}"
        for name, reason in broken.items()
    ]


def _codecs(
    wanted: dict[str, tuple[str, ...]], mode: Mode, broken: dict[str, str]
) -> dict[str, list[str]]:
    """Which of the codecs are there and which not."""
    found = {
        name: "av" not in broken and any(has_codec(one, mode) for one in names)
        for name, names in wanted.items()
    }
    return {
        state: [name for name, there in found.items() if there is so]
        for state, so in (("present", True), ("missing", False))
    }


def has_codec(name: str, mode: Mode) -> bool:
    """Whether FFmpeg has a decoder (mode "r") or an encoder ("w") of this name."""
    from av.codec import Codec

    try:
        Codec(name, mode)
    except ValueError:
        return False
    return True


def _missing_codecs(decoders: dict[str, list[str]], encoders: dict[str, list[str]]) -> list[str]:
    absent = [
        f"{name} {kind}"
        for kind, codecs in (("decoder", decoders), ("encoder", encoders))
        for name in codecs["missing"]
    ]
    return [
        f"this FFmpeg has no {codec}, so {NEEDED[codec]}; PyAV's own wheel has it: pip install --force-reinstall --only-binary av av"
        for codec in absent
        if codec in NEEDED
    ]


def _missing_disk(free: int | None) -> Iterable[str]:
    if free is not None and free < MIN_FREE_DISK_BYTES:
        yield f"only {_gigabytes(free)} GB are free in {Path.cwd()}; prepare and train need more, free some room or work in another folder"


def _computing(broken: dict[str, str]) -> dict[str, Any]:
    """Device and precision that work would run with, and why."""
    if "torch" in broken:
        return {"device": None, "precision": None}
    device = choose_device()
    return {"device": asdict(device), "precision": asdict(choose_precision(device.value))}


def _ffmpeg_versions() -> dict[str, str]:
    import av

    return {name: ".".join(map(str, numbers)) for name, numbers in av.library_versions.items()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def memory_bytes() -> dict[str, int | None]:
    """Memory of this machine: all of it, and what is left for new work."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {"total": None, "available": None}
    kibibytes = {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in lines)
        if rest.split()
    }
    found = {"total": kibibytes.get("MemTotal"), "available": kibibytes.get("MemAvailable")}
    return {name: None if size is None else size * 2**10 for name, size in found.items()}


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _gigabytes(size: int | None) -> float | None:
    return None if size is None else round(size / GIGABYTE, 1)
