"""The base of all fusions, and how the answer of one becomes a number.

A fusion has three steps. `features` takes what it compares from the towers' outputs. `project`
transforms each side by itself, once per row. `logits` answers for any two projections.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import ClassVar, Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from looklisten.config import Side
from looklisten.model.backbones import TowerOutput

CORRESPOND = 1
"""The index of the logit of "they correspond"."""
MIN_NORM = 1e-6
"""A shorter vector is divided by this instead of by its length.

So the gradient of a vector of zeros is bounded.
"""

SelfT = TypeVar("SelfT")
Arguments = ParamSpec("Arguments")
ResultT = TypeVar("ResultT")


def in_float32(
    method: Callable[Concatenate[SelfT, Arguments], ResultT],
) -> Callable[Concatenate[SelfT, Arguments], ResultT]:
    """Make `method` compute in float32, its tensor arguments too, also under autocast.

    These computations are cheap. bfloat16 has only 8 significant bits, so different pairs could get
    equal logits.
    """

    @wraps(method)
    def float32_method(self: SelfT, *args: Arguments.args, **kwargs: Arguments.kwargs) -> ResultT:
        device_type = _autocast_device_type((*args, *kwargs.values()))
        if device_type is None:
            return method(self, *args, **kwargs)
        with torch.autocast(device_type, enabled=False):
            float_args = [_as_float32(value) for value in args]
            float_kwargs = {name: _as_float32(value) for name, value in kwargs.items()}
            return method(self, *float_args, **float_kwargs)  # type: ignore[arg-type]

    return float32_method  # type: ignore[return-value]


def _autocast_device_type(values: tuple[object, ...]) -> str | None:
    """The device type of the tensors, if autocast is on for it."""
    for value in values:
        # PyTorch has no autocast for the device "meta", on which nothing is computed.
        if isinstance(value, Tensor) and value.device.type != "meta":
            device_type = value.device.type
            return device_type if torch.is_autocast_enabled(device_type) else None
    return None


def _as_float32(value: object) -> object:
    return value.float() if isinstance(value, Tensor) else value


class Fusion(nn.Module):
    """The part of the network that compares the features of the two towers."""

    shares_space: ClassVar[bool] = False
    """Whether both sides become vectors of one space, so that a similarity has a meaning."""
    aligns_vectors: ClassVar[bool] = False
    """Whether a whole frame and a whole second of sound each have one vector in that space."""
    compares_positions: ClassVar[bool] = False
    """Whether the sound is compared with every position of the frame."""
    shows_answer: ClassVar[bool] = False
    """Whether `shown_similarities` gives the best position the answer of the pair."""
    gather: Callable[[Tensor], Tensor] | None = None
    """Where processes share a batch: from the rows of one to the rows of all."""

    def features(
        self, vision: TowerOutput, audio: TowerOutput
    ) -> tuple[
        Float[Tensor, "n *positions vision_features"], Float[Tensor, "m *times audio_features"]
    ]:
        """The features that this fusion compares; they depend on no weight of the fusion."""
        return self.vision_features(vision), self.audio_features(audio)

    def vision_features(self, vision: TowerOutput) -> Float[Tensor, "n *positions features"]:
        """What is compared of a frame: by default one vector."""
        return vision.vector

    def audio_features(self, audio: TowerOutput) -> Float[Tensor, "m *times features"]:
        """What is compared of a second of sound: by default one vector."""
        return audio.vector

    def project(
        self, vision: Float[Tensor, "*n vision_features"], audio: Float[Tensor, "*m audio_features"]
    ) -> tuple[Float[Tensor, "*n width"], Float[Tensor, "*m width"]]:
        """What `logits` needs of the features, each side by itself."""
        raise NotImplementedError

    def logits(
        self, vision: Float[Tensor, "*#pairs width"], audio: Float[Tensor, "*#pairs width"]
    ) -> Float[Tensor, "*all 2"]:
        """Logits (does not, does correspond) of two projections, row by row."""
        raise NotImplementedError

    def all_pairs_logits(
        self,
        vision: Float[Tensor, "n *positions width"],
        audio: Float[Tensor, "m *times width"],
    ) -> Float[Tensor, "n m 2"]:
        """Logits of every row of `vision` with every row of `audio`."""
        return self.logits(vision[:, None], audio[None])

    def forward(
        self,
        vision: Float[Tensor, "n *positions vision_features"],
        audio: Float[Tensor, "n *times audio_features"],
    ) -> Float[Tensor, "n 2"]:
        """Logits (does not, does correspond) of the features of pairs, row by row."""
        return self.logits(*self.project(vision, audio))

    def initialize_answer(self) -> None:
        """Set the weights that have fixed initial values; by default there are none."""

    def fit_inputs(
        self,
        vision: Float[Tensor, "n *positions vision_features"],
        audio: Float[Tensor, "m *times audio_features"],
    ) -> None:
        """Take from features of frozen towers what it needs to know of them; by default nothing."""

    # What follows has a meaning only if `shares_space` is true.

    @property
    def aligned_width(self) -> int:
        """The length of the vectors that `aligned` gives."""
        raise NotImplementedError

    def aligned(
        self, features: Float[Tensor, "*n features"], side: Side
    ) -> Float[Tensor, "*n width"]:
        """Unit vectors of the shared space of one side, in float32."""
        raise NotImplementedError

    def aligned_frame(self, vision: TowerOutput) -> Float[Tensor, "n width"]:
        """The unit vectors of whole frames, if `aligns_vectors` is true."""
        return self.aligned(vision.vector, "vision")

    def similarities(
        self,
        vision: Float[Tensor, "n *positions width"],
        audio: Float[Tensor, "m *times width"],
    ) -> Float[Tensor, "n m"]:
        """The similarity of every row of `vision` with every row of `audio`."""
        raise NotImplementedError

    def part_similarities(
        self,
        vision: Float[Tensor, "n *positions width"],
        audio: Float[Tensor, "m *times width"],
    ) -> Sequence[Float[Tensor, "n m"]]:
        """The similarities that an objective trains one by one."""
        return (self.similarities(vision, audio),)

    def decided_similarities(
        self,
        parts: Sequence[Float[Tensor, "n m"]],
        vision: Float[Tensor, "n *positions width"],  # noqa: ARG002 (for fusions with fixed parts)
        audio: Float[Tensor, "m *times width"],  # noqa: ARG002
    ) -> Float[Tensor, "n m"]:
        """What `similarities` gives, without a gradient, where `parts` are known already."""
        return torch.stack(list(parts)).mean(0).detach()

    def similarity_logits(self, similarity: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs 2"]:
        """The logits of pairs, from their similarities."""
        raise NotImplementedError

    def whole_frame_similarity(
        self, similarities: Float[Tensor, "*sounds frame_vectors"]
    ) -> Float[Tensor, "*sounds"]:
        """The similarity of each sound with a frame, from those with all vectors of the frame."""
        raise NotImplementedError

    def map_positions(self, vision: TowerOutput) -> Float[Tensor, "n positions features"]:
        """The features of each position that a heat map compares with the sound."""
        return vision.map.flatten(2).transpose(1, 2)

    def shown_similarities(
        self,
        similarities: Float[Tensor, "n positions"],
        answers: Float[Tensor, " n"],
        vision: TowerOutput,
    ) -> Float[Tensor, "n positions"]:
        """The similarities that a heat map shows of the positions of a frame.

        `answers`: the similarity of each pair, which is what its probability comes from.
        `vision`: what the tower gave of the frames.
        """
        # Where each position is compared as in training, it speaks for itself.
        del answers, vision
        return similarities


def correspondence_logit(logits: Float[Tensor, "*pairs 2"]) -> Float[Tensor, "*pairs"]:
    """One number for each pair: the log-odds that frame and sound correspond."""
    return logits[..., CORRESPOND] - logits[..., 1 - CORRESPOND]
