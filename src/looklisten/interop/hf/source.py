"""Finds a model of the Hugging Face Hub by `hf:NAME` and loads it with `transformers`.

NAME is a folder, or `org/name` on the Hub. Every error of `transformers` becomes one sentence.
Knows folders and models, no sound and no frame.
"""

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from looklisten.errors import ConfigError, LookListenError, PublishedFileError
from looklisten.interop.hub import download_files
from looklisten.model.networks import HF_PREFIX, HUB_NAME

DESCRIPTION_FILES = ("*.json", "*.txt", "*.model", "README.md")
"""Settings of the network, of its input and of its tokenizer; few megabytes."""
# A repository may hold the same weights for other libraries too.
WEIGHT_FILES = ("model*.safetensors",)
# A pickle could run code, so models that have nothing else are refused.
NO_PICKLE = {"use_safetensors": True, "trust_remote_code": False}


@dataclass(frozen=True, eq=False)
class HfSource:
    """A model in a folder here or on the Hub."""

    name: str
    """With the prefix `hf:`."""
    folder: Path
    """With the description; the weights may still be on the Hub."""
    config: Any
    """The `PretrainedConfig` of transformers."""

    @property
    def model_type(self) -> str:
        """The architecture, as transformers calls it."""
        return str(self.config.model_type)

    @property
    def license(self) -> str:
        """What the model card names."""
        card = self.folder / "README.md"
        text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        match = re.search(r"^license:\s*(\S+)", text, re.MULTILINE)
        return match[1] if match else "that of its model card"

    def load(self, auto_class: str, optional_weights: str = "$^") -> nn.Module:
        """The model with its published weights, as a class of transformers builds it.

        `optional_weights`: a pattern of weights that may begin anew. Raises PublishedFileError.
        """
        folder = self.folder_with_weights()
        with transformers_for(self.name) as transformers:
            # `AutoBackbone.from_pretrained` asks the Hub even for a folder; the class does not.
            with torch.device("meta"):
                model_class = type(getattr(transformers, auto_class).from_config(self.config))
            model, report = model_class.from_pretrained(
                folder, config=self.config, output_loading_info=True, **NO_PICKLE
            )
        missing = sorted(
            weight for weight in report["missing_keys"] if not re.search(optional_weights, weight)
        )
        if missing:
            raise PublishedFileError(
                f"the weights of {self.name} are not those of a {self.model_type}: "
                f"{len(missing)} are missing, such as {missing[0]}; download its files again"
            )
        loaded: nn.Module = model.float().eval()
        return loaded

    def folder_with_weights(self) -> Path:
        """The folder, with the weights. Raises CheckpointError when the Hub does not give them."""
        return _folder(self.name, WEIGHT_FILES)


def hf_source(name: str) -> HfSource:
    """The model `hf:FOLDER` or `hf:org/name`. Its weights are not read.

    Raises ConfigError without the extra, PublishedFileError or CheckpointError, one sentence each.
    """
    # Before the download, which would be in vain.
    with transformers_for(name):
        pass
    folder = _folder(name, DESCRIPTION_FILES)
    with transformers_for(name) as transformers:
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return HfSource(name, folder, config)


def _folder(name: str, files: tuple[str, ...]) -> Path:
    bare_name = name.removeprefix(HF_PREFIX)
    folder = Path(bare_name).expanduser()
    if folder.is_dir():
        return folder
    if not HUB_NAME.fullmatch(bare_name):
        raise PublishedFileError(
            f"{name}: there is no folder {bare_name}; give {HF_PREFIX} and the folder of a model, "
            f"or {HF_PREFIX}org/name for one of the Hugging Face Hub"
        )
    return download_files(bare_name, files)


@contextlib.contextmanager
def transformers_for(name: str) -> Iterator[Any]:
    """The package `transformers`, without its messages; an error becomes one about `name`."""
    try:
        import transformers
        from transformers.utils import logging
    except ImportError:
        raise ConfigError(
            f"{name} is a model of transformers, which is not installed: "
            "pip install 'looklisten[hf]'"
        ) from None
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # Of empty mel bands, which such models were trained with.
            warnings.simplefilter("ignore")
            yield transformers
    except LookListenError:
        raise
    # A damaged file makes readers fail in any way.
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # The first sentence; others advise what this package does not do.
        reason = lines[0].partition(". ")[0].rstrip(".") if lines else type(error).__name__
        raise PublishedFileError(
            f"{name} cannot be loaded ({reason}); check that its files are complete and that "
            f"transformers {transformers.__version__} has this model"
        ) from None
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
