"""OpenL3's networks, and its functions under its own names (github.com/marl/openl3, 0.4.2).

from looklisten.interop import openl3

vectors, times = openl3.get_audio_embedding(samples, sample_rate, content_type="env",
embedding_size=512)

Names, order and defaults are OpenL3's; docs/openl3.md lists the differences. Modules are imported
when a name is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from looklisten.interop.openl3.errors import OpenL3Error, OpenL3Warning

if TYPE_CHECKING:
    from looklisten.interop.openl3 import models
    from looklisten.interop.openl3.audio import get_audio_embedding, preprocess_audio
    from looklisten.interop.openl3.files import (
        get_output_path,
        process_audio_file,
        process_image_file,
        process_video_file,
    )
    from looklisten.interop.openl3.images import get_image_embedding
    from looklisten.interop.openl3.models import convert, load

_NAMES_OF_MODULE = {
    "audio": ("get_audio_embedding", "preprocess_audio"),
    "files": ("get_output_path", "process_audio_file", "process_image_file", "process_video_file"),
    "images": ("get_image_embedding",),
    "models": ("convert", "load"),
}
_MODULE_OF_NAME = {name: module for module, names in _NAMES_OF_MODULE.items() for name in names}

__all__ = [
    "OpenL3Error",
    "OpenL3Warning",
    "convert",
    "get_audio_embedding",
    "get_image_embedding",
    "get_output_path",
    "load",
    "models",
    "preprocess_audio",
    "process_audio_file",
    "process_image_file",
    "process_video_file",
]


def __getattr__(name: str) -> Any:
    if name == "models":
        return importlib.import_module(f"{__name__}.models")
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF_NAME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
