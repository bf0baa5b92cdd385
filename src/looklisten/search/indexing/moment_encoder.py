"""Frames and seconds of sound -> vectors of the space that both sides share, and tags.

Knows tensors and a network, no file and no store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float32, Num, UInt8
from torch import Tensor

from looklisten.config import SIDES, Side
from looklisten.errors import ConfigError
from looklisten.inference.encoder import (
    Encoder,
    NetworkEncoder,
    TextEncoder,
    encode_rows,
    encoder_of,
    vector_length,
)
from looklisten.inference.towers import ALIGNED, check_layer, vectors_from_pooled
from looklisten.media.frames import fit_square, stack
from looklisten.model.l3net import L3Net
from looklisten.model.tower_classes import TowerClasses, tower_classes

TAGS_PER_SIDE = 5
LEAST_TAG_SCORE = 0.05
"""A class with a lower score is no tag."""
ROWS_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class EncodedInput:
    """The vector of one frame or one second of sound, of length 1, and its tags."""

    vector: Float32[np.ndarray, " width"]
    tags: dict[str, float]
    """The names of the classes with the highest scores, from 0 to 1; empty without classes."""


class MomentEncoder:
    """A network as indexing and searching use it.

    Each input goes through its tower once. A model of others may encode one side alone. Raises
    ConfigError, one sentence, for a network whose two sides share no space, or that has no single
    vector of a frame.
    """

    def __init__(self, network: L3Net | Encoder, with_tags: bool = True) -> None:
        self._encoder: Encoder
        self._classes: dict[Side, TowerClasses] = {}
        self.network: L3Net | None = None
        """None for a model of others, which gives vectors alone."""
        if not isinstance(network, L3Net):
            self._encoder = encoder_of(network)
            if not self.sides:
                raise ConfigError(
                    "this network has no vectors of a space that sounds, pictures or texts share; "
                    "index with another one, such as start"
                )
            return
        for side in SIDES:
            check_layer(network, side, ALIGNED)
        self.network = network.eval()
        self._encoder = NetworkEncoder(self.network)
        for side in SIDES:
            classes = tower_classes(network.tower(side)) if with_tags else None
            if classes is not None:
                self._classes[side] = classes

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides that have vectors."""
        layers = self._encoder.layers
        return tuple(side for side in SIDES if ALIGNED in layers.get(side, ()))

    @cached_property
    def width(self) -> int:
        """Numbers in a vector."""
        return vector_length(self._encoder, self.sides[0], ALIGNED)

    @property
    def resize_pixels(self) -> int:
        """The shorter side that a frame is resized to before it comes here."""
        return self._encoder.resize_pixels

    def encode_text(self, text: str) -> dict[Side, Float32[np.ndarray, " width"]]:
        """The vector of a text for each side that it can be compared with.

        Raises ConfigError for a network without vectors of texts.
        """
        if not isinstance(self._encoder, TextEncoder):
            raise ConfigError(
                "this network has no vectors of texts; search with a sound, a picture, a video or "
                "a tag, or index with a model that has them (hf:NAME, such as CLIP or CLAP)"
            )
        encoder = self._encoder
        return {side: encoder.encode_text([text], side)[0].numpy() for side in self.sides}

    def tag_names(self, side: Side) -> tuple[str, ...]:
        """The names of all classes of a side; none for a network without published classes."""
        return self._classes[side].names if side in self._classes else ()

    def encode_frames(
        self, frames: Sequence[UInt8[Tensor, "height width 3"]]
    ) -> list[EncodedInput]:
        """Vectors and tags of frames."""
        encoder = self._encoder
        squares = [fit_square(frame, encoder.crop_pixels, encoder.frame_fit) for frame in frames]
        return self._encode("vision", stack(squares)) if squares else []

    def encode_sounds(self, waveforms: Num[np.ndarray, "sounds samples"]) -> list[EncodedInput]:
        """Vectors and tags of seconds of sound at 48 kHz."""
        return self._encode("audio", torch.from_numpy(waveforms)) if len(waveforms) else []

    @torch.inference_mode()
    def _encode(self, side: Side, rows: Num[Tensor, "rows ..."]) -> list[EncodedInput]:
        if side not in self._classes:
            vectors = encode_rows(self._encoder, side, ALIGNED, rows, ROWS_AT_ONCE).numpy()
            return [EncodedInput(vector, {}) for vector in vectors]
        # The classes need the vector of the tower, from which the aligned one follows.
        assert self.network is not None, "only an L3Net has classes"
        tower = self.network.tower(side)
        of_vector = tower.vector_layer()
        (layer,) = [name for name, known in tower.layers.items() if known == of_vector][:1]
        pooled = encode_rows(self._encoder, side, layer, rows, ROWS_AT_ONCE)
        on_device = pooled.to(self._encoder.device)
        aligned = vectors_from_pooled(self.network, on_device, side, ALIGNED)
        vectors = aligned.float().cpu().numpy()
        tags = self._tags(side, pooled)
        return [EncodedInput(*row) for row in zip(vectors, tags, strict=True)]

    def _tags(self, side: Side, pooled: Float[Tensor, "rows features"]) -> list[dict[str, float]]:
        classes = self._classes[side]
        scores, numbers = classes.scores(pooled).topk(TAGS_PER_SIDE)
        tags = []
        for row_scores, row_numbers in zip(scores.tolist(), numbers.tolist(), strict=True):
            row = {}
            for score, number in zip(row_scores, row_numbers, strict=True):
                if score >= LEAST_TAG_SCORE:
                    row[classes.names[number]] = round(score, 4)
            tags.append(row)
        return tags
