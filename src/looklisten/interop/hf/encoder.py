"""Whole models of the Hub as encoders: CLIP, SigLIP, CLAP, PE-AV, by `hf:NAME`.

Their vectors of pictures, sounds and texts have length 1 and share one space. Knows tensors, models
and their input, no Hub.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import Side
from looklisten.errors import ConfigError
from looklisten.inference.towers import ALIGNED
from looklisten.interop.hf.families import ENCODER_FAMILIES, ModelInputs
from looklisten.interop.hf.pictures import PictureInput, picture_input, video_picture_input
from looklisten.interop.hf.source import HfSource, hf_source, transformers_for
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import FrameFit, frames_to_unit
from looklisten.media.spectrogram import int16_to_float
from looklisten.model.network_key import network_key

WITHOUT_PICTURES = PictureInput(256, 224, "crop", 1.0, (0.0,) * 3, (1.0,) * 3)
"""Frames are decoded to this size where a model takes none."""
LONGEST_TEXT_TOKENS = 512
"""Where a tokenizer does not say how much its model reads."""


@dataclass(frozen=True, eq=False)
class ModelReaders:
    """What turns the inputs of a user into those of a model; None where it takes no such input."""

    picture: PictureInput | None
    extractor: Any | None
    """The feature extractor of sound."""
    tokenizer: Any


class HfEncoder(nn.Module):
    """A model with vectors of pictures, sounds and texts; an `Encoder` and a `TextEncoder`."""

    def __init__(self, name: str, model: Any, readers: ModelReaders) -> None:
        super().__init__()
        self.model = model.eval()
        self.model_type = str(model.config.model_type)
        self.picture = readers.picture
        # As text, so that the key of the network knows it.
        settings = readers.extractor.to_dict() if readers.extractor else {}
        self.sound_input = json.dumps(settings, sort_keys=True, default=str)
        self._name = name
        self._family = ENCODER_FAMILIES[self.model_type]
        self._readers = readers

    @property
    def space_id(self) -> str:
        """A hash of all that changes vectors: equal for models whose vectors can be compared."""
        return network_key(self)

    # What an `Encoder` has.

    @property
    def layers(self) -> Mapping[Side, tuple[str, ...]]:
        return dict.fromkeys(self._family.sides, (ALIGNED,))

    @property
    def resize_pixels(self) -> int:
        return (self.picture or WITHOUT_PICTURES).resize_pixels

    @property
    def crop_pixels(self) -> int:
        return (self.picture or WITHOUT_PICTURES).crop_pixels

    @property
    def frame_fit(self) -> FrameFit:
        return (self.picture or WITHOUT_PICTURES).frame_fit

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @torch.inference_mode()
    def encode(
        self,
        side: Side,
        batch: Num[Tensor, "batch ..."],
        layer: str,  # noqa: ARG002 (there is one)
    ) -> Float[Tensor, "batch features"]:
        """Unit vectors of seconds of sound at 48 kHz or of frames."""
        if side == "vision":
            assert self.picture is not None
            assert self._family.picture is not None
            pictures = self.picture.normalized(frames_to_unit(batch))
            vectors = self._family.picture(self.model, pictures)
        else:
            assert self._family.sound is not None
            vectors = self._family.sound(self.model, self._sound_inputs(batch))
        return functional.normalize(vectors.float(), dim=-1)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], side: Side) -> Float[Tensor, "texts features"]:
        """Unit vectors of texts, to be compared with those of `side`, on the CPU.

        Raises ConfigError for a text without a word.
        """
        tokenizer = self._readers.tokenizer
        longest = min(tokenizer.model_max_length, LONGEST_TEXT_TOKENS)
        vectors = []
        # One by one, so that a vector does not depend on other texts.
        for text in texts:
            if not text.strip():
                raise ConfigError("a text without a word has no vector; give some words")
            with transformers_for(self._name):
                tokens = tokenizer(
                    text,
                    return_tensors="pt",
                    truncation=True,
                    max_length=longest,
                    padding="max_length" if self._family.fills_texts else False,
                )
            own = {name: tokens[name].to(self.device) for name in self._text_inputs(tokens)}
            vectors.append(self._family.text(self.model, own, side).float().cpu())
        return functional.normalize(torch.cat(vectors), dim=-1)

    def _text_inputs(self, tokens: Mapping[str, Any]) -> list[str]:
        # SigLIP was trained without a mask over the tokens that fill up a text.
        names = ["input_ids"] if self._family.fills_texts else ["input_ids", "attention_mask"]
        return [name for name in names if name in tokens]

    def _sound_inputs(self, waveforms: Num[Tensor, "batch samples"]) -> ModelInputs:
        """The input of the model, by its own feature extractor, at its own rate."""
        extractor = self._readers.extractor
        assert extractor is not None
        rate_hz = int(extractor.sampling_rate)
        rows = int16_to_float(waveforms).cpu().numpy()
        if rate_hz != SAMPLE_RATE_HZ:
            rows = soxr.resample(rows.T, SAMPLE_RATE_HZ, rate_hz, "HQ").T
        sounds = [np.ascontiguousarray(row, np.float32) for row in rows]
        with transformers_for(self._name):
            inputs = extractor(sounds, sampling_rate=rate_hz, return_tensors="pt")
        return {name: values.to(self.device) for name, values in inputs.items()}


def load_encoder(name: str) -> HfEncoder:
    """The encoder `hf:FOLDER` or `hf:org/name`, on the CPU; its weights are read.

    Raises ConfigError without the extra, and for a model without vectors of texts and of pictures
    or sounds; PublishedFileError or CheckpointError for one that cannot be read.
    """
    source = hf_source(name)
    family = ENCODER_FAMILIES.get(source.model_type)
    if family is None:
        raise ConfigError(
            f"{name} is a {source.model_type}, and encoders are models of the kinds "
            f"{', '.join(ENCODER_FAMILIES)}; a model of pictures or of sound alone can be a "
            f'backbone: model.vision_backbone = "{name}"'
        )
    readers = ModelReaders(
        picture=_picture(source, family.video_pictures) if family.picture else None,
        extractor=_reader(source, "AutoFeatureExtractor") if family.sound else None,
        tokenizer=_reader(source, "AutoTokenizer"),
    )
    return HfEncoder(name, source.load("AutoModel"), readers)


def _picture(source: HfSource, of_video: bool) -> PictureInput:
    return video_picture_input(source) if of_video else picture_input(source)


def _reader(source: HfSource, auto_class: str) -> Any:
    with transformers_for(source.name) as transformers:
        return getattr(transformers, auto_class).from_pretrained(
            source.folder, trust_remote_code=False
        )
