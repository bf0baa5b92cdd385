"""How models of each architecture give vectors of pictures, of sounds and of texts.

Knows models of transformers and tensors. Does not know how they are loaded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from looklisten.config import Side

ModelInputs = Mapping[str, Tensor]
"""What a feature extractor or a tokenizer of transformers gives."""
Vectors = Float[Tensor, "batch features"]


@dataclass(frozen=True)
class EncoderFamily:
    """What the models of one architecture encode; vectors need not have length 1."""

    picture: Callable[[Any, Float[Tensor, "batch 3 height width"]], Vectors] | None
    sound: Callable[[Any, ModelInputs], Vectors] | None
    text: Callable[[Any, ModelInputs, Side], Vectors]
    """The side: some models have another vector of a text for pictures than for sounds."""
    fills_texts: bool = False
    """Whether each text is filled up to the length that the model was trained with."""
    video_pictures: bool = False
    """Whether a picture is a video of one frame, with the input of the model's videos."""

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides of which the models have vectors."""
        by_side: dict[Side, object] = {"vision": self.picture, "audio": self.sound}
        return tuple(side for side, encode in by_side.items() if encode is not None)


def _image_features(model: Any, pictures: Tensor) -> Tensor:
    return _pooled(model.get_image_features(pixel_values=pictures))


def _audio_features(model: Any, inputs: ModelInputs) -> Tensor:
    return _pooled(model.get_audio_features(**inputs))


def _text_features(model: Any, tokens: ModelInputs, side: Side) -> Tensor:  # noqa: ARG001
    return _pooled(model.get_text_features(**tokens))


def _pooled(output: Any) -> Tensor:
    """The vectors in what a getter gives, which depends on the version of transformers."""
    vectors: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return vectors


# Perception Encoder Audiovisual. Its getters of texts read hidden states that they did not ask for,
# and of videos there is none, so the parts are called here.


def _pe_sound(model: Any, inputs: ModelInputs) -> Tensor:
    part = getattr(model, "audio_model", model)
    # A window has no padding, and a mask would only slow the attention.
    vectors: Tensor = part.audio_head(part.audio_encoder(inputs["input_values"]).pooler_output)
    return vectors


def _pe_picture(model: Any, pictures: Tensor) -> Tensor:
    part = model.video_model
    vectors: Tensor = part.video_head(part.video_encoder(pictures[:, None]).pooler_output)
    return vectors


def _pe_text(model: Any, tokens: ModelInputs, side: Side) -> Tensor:
    output = model.text_model(**tokens, output_hidden_states=True)
    if side == "vision":
        head = model.video_model.text_video_head
    else:
        head = getattr(model, "audio_model", model).text_audio_head
    vectors: Tensor = head(output.hidden_states[-1][:, 0])
    return vectors


ENCODER_FAMILIES: Mapping[str, EncoderFamily] = {
    "clip": EncoderFamily(_image_features, None, _text_features),
    "siglip": EncoderFamily(_image_features, None, _text_features, fills_texts=True),
    "clap": EncoderFamily(None, _audio_features, _text_features),
    "pe_audio": EncoderFamily(None, _pe_sound, _pe_text),
    "pe_audio_video": EncoderFamily(_pe_picture, _pe_sound, _pe_text, video_pictures=True),
}
"""By the name that transformers has for the architecture."""
