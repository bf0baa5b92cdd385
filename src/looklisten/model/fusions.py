"""Fusions: how the features of the two towers are compared."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import ModelConfig
from looklisten.model.backbones.backbone import TowerOutput
from looklisten.model.backbones.vgg import Vgg

CORRESPOND = 1
"""The class of the two logits that says yes."""


MIN_NORM = 1e-6
"""A shorter vector is divided by this instead of by its length, so that the gradient of a vector of
zeros is bounded.
"""


Own = TypeVar("Own")


Tensors = ParamSpec("Tensors")


Result = TypeVar("Result")


def in_float32(
    method: Callable[Concatenate[Own, Tensors], Result],
) -> Callable[Concatenate[Own, Tensors], Result]:
    """`method`, its tensors and its arithmetic in float32 also where autocast is on.

    Similarities and logits are small sums. bfloat16 has 8 bits, which would make unequal pairs
    equal.
    """

    @wraps(method)
    def computed(self: Own, *tensors: Tensors.args, **named: Tensors.kwargs) -> Result:
        kinds = {one.device.type for one in (*tensors, *named.values()) if isinstance(one, Tensor)}
        # PyTorch knows no autocast of the device "meta", on which nothing is computed.
        kind = next(iter(kinds - {"meta"}), None)
        if kind is None or not torch.is_autocast_enabled(kind):
            return method(self, *tensors, **named)
        with torch.autocast(kind, enabled=False):
            wide = [one.float() if isinstance(one, Tensor) else one for one in tensors]
            wide_named = {
                name: one.float() if isinstance(one, Tensor) else one for name, one in named.items()
            }
            return method(self, *wide, **wide_named)  # type: ignore[arg-type]

    return computed  # type: ignore[return-value]


class Fusion(nn.Module):
    """How the two sides meet: each is read off its tower and projected for itself, once a row; any
    two projections are answered.
    """

    def read(
        self, seen: TowerOutput, heard: TowerOutput
    ) -> tuple[Float[Tensor, "n *places features"], Float[Tensor, "m *moments features"]]:
        """What of the towers' outputs this fusion compares: their vectors, or several parts a row."""
        return seen.vector, heard.vector

    def project(
        self, vision: Float[Tensor, "*n features"], audio: Float[Tensor, "*m features"]
    ) -> tuple[Float[Tensor, "*n width"], Float[Tensor, "*m width"]]:
        """What `answer` needs of what was read, each side by itself."""
        raise NotImplementedError

    def answer(
        self, vision: Float[Tensor, "*#pairs width"], audio: Float[Tensor, "*#pairs width"]
    ) -> Float[Tensor, "*all 2"]:
        """Logits (does not, does correspond), row by row."""
        raise NotImplementedError

    def answer_all(
        self, vision: Float[Tensor, "n *places width"], audio: Float[Tensor, "m *moments width"]
    ) -> Float[Tensor, "n m 2"]:
        """Logits of every row of `vision` with every row of `audio`."""
        return self.answer(vision[:, None], audio[None])

    def forward(
        self,
        vision: Float[Tensor, "n *places features"],
        audio: Float[Tensor, "n *moments features"],
    ) -> Float[Tensor, "n 2"]:
        """Logits (does not, does correspond) of what was read of pairs, row by row."""
        return self.answer(*self.project(vision, audio))


class ConcatFusion(Fusion):
    """Both vectors side by side, fc1 and ReLU, fc2 to two logits (paper, figure 2)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * features, width)
        self.fc2 = nn.Linear(width, 2)

    def project(
        self, vision: Float[Tensor, "*n features"], audio: Float[Tensor, "*m features"]
    ) -> tuple[Float[Tensor, "*n width"], Float[Tensor, "*m width"]]:
        """What either side adds to fc1: a layer over (vision, audio) is a sum of one product a
        side.
        """
        for_vision, for_audio = self.fc1.weight.chunk(2, dim=1)
        return functional.linear(vision, for_vision, self.fc1.bias), functional.linear(
            audio, for_audio
        )

    @in_float32
    def answer(
        self, vision: Float[Tensor, "*#pairs width"], audio: Float[Tensor, "*#pairs width"]
    ) -> Float[Tensor, "*all 2"]:
        return self.fc2(functional.relu(vision + audio))  # type: ignore[no-any-return]


class AlignedFusion(Fusion):
    """Each side to unit vectors by two layers of its own, their similarity to two logits.

    The two sides meet in nothing but a similarity, so they learn one space.
    """

    first_slope: float
    first_threshold: float

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.vision = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width))
        self.audio = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width))
        self.fc3 = nn.Linear(1, 2)

    def start_right(self) -> None:
        """Begin with "near means yes", or the network may learn to be far where it agrees ("Objects
        that Sound", section 3.1).
        """
        slope = torch.tensor([-self.first_slope, self.first_slope])
        with torch.no_grad():
            self.fc3.weight.copy_(slope[:, None])
            self.fc3.bias.copy_(-slope * self.first_threshold)

    def project(
        self, vision: Float[Tensor, "*n features"], audio: Float[Tensor, "*m features"]
    ) -> tuple[Float[Tensor, "*n width"], Float[Tensor, "*m width"]]:
        """Unit vectors of one space, in float32."""
        sides = self.vision(vision).float(), self.audio(audio).float()
        seen, heard = (functional.normalize(side, dim=-1, eps=MIN_NORM) for side in sides)
        return seen, heard

    def compare(
        self, vision: Float[Tensor, "n *places width"], audio: Float[Tensor, "m *moments width"]
    ) -> Float[Tensor, "n m"]:
        """The similarity, -1..1, of every row of `vision` with every row of `audio`."""
        raise NotImplementedError

    def decide(self, similarity: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs 2"]:
        """Logits (does not, does correspond) of similarities."""
        raise NotImplementedError


class DistanceFusion(AlignedFusion):
    """The distance of two unit vectors (AVE-Net, "Objects that Sound" 2018).

    The threshold begins at a distance of 1.2, about that of unrelated vectors behind a ReLU; both
    numbers are learnt from there.
    """

    first_slope, first_threshold = -2.5, 1.2

    @in_float32
    def compare(
        self, vision: Float[Tensor, "n width"], audio: Float[Tensor, "m width"]
    ) -> Float[Tensor, "n m"]:
        return vision @ audio.T

    @in_float32
    def decide(self, similarity: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs 2"]:
        distance = (2 - 2 * similarity[..., None]).clamp_min(1e-6).sqrt()
        return self.fc3(distance)  # type: ignore[no-any-return]

    @in_float32
    def answer(
        self, vision: Float[Tensor, "*#pairs width"], audio: Float[Tensor, "*#pairs width"]
    ) -> Float[Tensor, "*all 2"]:
        return self.decide((vision * audio).sum(-1))


class SimilarityFusion(AlignedFusion):
    """The sound with the place of the frame that is nearest to it (AVOL-Net, "Objects that Sound"
    2018: multiple instances).

    Every place of the vision tower's map has a unit vector. (There the vectors have no unit length;
    here they have, as in what came after it, so that a similarity means the same for every sound.)
    The maximum over places is a soft one, so that more places than one learn from a pair: with the
    hard one nothing was learnt for the first 200 to 500 steps (LOG.md, 2026-11-24).

    The soft maximum is log(sum over places of exp(sharpness x similarity) / places) / sharpness.
    `places` is how many a training frame has, whatever frame is looked at: places without evidence,
    such as a wide frame has more of, then change next to nothing. A network of all its training
    crops has the logarithm of the mean.
    """

    first_slope, first_threshold = 5.0, 0.5

    def __init__(self, features: int, width: int, sharpness: float, places: int) -> None:
        super().__init__(features, width)
        self.sharpness, self.places = sharpness, places

    def read(
        self, seen: TowerOutput, heard: TowerOutput
    ) -> tuple[Float[Tensor, "n places features"], Float[Tensor, "m moments features"]]:
        return seen.map.flatten(2).transpose(1, 2), heard.vector[:, None]

    @in_float32
    def compare(
        self, vision: Float[Tensor, "n places width"], audio: Float[Tensor, "m moments width"]
    ) -> Float[Tensor, "n m"]:
        """The best place of each moment, softly, averaged over the moments."""
        return self._best(torch.einsum("npw,mtw->npmt", self.sharpness * vision, audio), 1).mean(2)

    @in_float32
    def decide(self, similarity: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs 2"]:
        return self.fc3(similarity[..., None])  # type: ignore[no-any-return]

    @in_float32
    def answer(
        self, vision: Float[Tensor, "*n places width"], audio: Float[Tensor, "*n moments width"]
    ) -> Float[Tensor, "*n 2"]:
        return self.decide(
            self._best(self.sharpness * vision @ audio.transpose(-1, -2), -2).mean(-1)
        )

    def best(self, similarity: Float[Tensor, "*volume"], dimension: int) -> Float[Tensor, "*rest"]:
        """The soft maximum of similarities over the places that lie along `dimension`."""
        return self._best(self.sharpness * similarity, dimension)

    def _best(self, sharpened: Float[Tensor, "*volume"], dimension: int) -> Float[Tensor, "*rest"]:
        """The same of similarities that come times `sharpness`, where that is cheaper on the
        vectors.
        """
        evidence = (sharpened - self.sharpness).exp_().sum(dimension).float()
        return (evidence / self.places).log() / self.sharpness + 1

    @in_float32
    def answer_all(
        self, vision: Float[Tensor, "n places width"], audio: Float[Tensor, "m moments width"]
    ) -> Float[Tensor, "n m 2"]:
        return self.decide(self.compare(vision, audio))


class DenseFusion(SimilarityFusion):
    """Each moment of the sound with the place that is nearest to it, averaged over the second
    (after DenseAV, Hamilton et al. 2024).

    So it tells where in the frame and when in the second.
    """

    def read(
        self, seen: TowerOutput, heard: TowerOutput
    ) -> tuple[Float[Tensor, "n places features"], Float[Tensor, "m moments features"]]:
        return seen.map.flatten(2).transpose(1, 2), heard.map.amax(2).transpose(1, 2)


WHOLE_FUSIONS = {"concat": ConcatFusion, "distance": DistanceFusion}
"""Over one vector a side."""


PLACES_FUSIONS = {"similarity": SimilarityFusion, "dense": DenseFusion}
"""Over every place of the frame."""


def build_fusion(config: ModelConfig, vision: Vgg) -> Fusion:
    """The fusion that `config` names, its weights not drawn yet."""
    features, width = config.widths[-1], config.fusion_width
    if config.fusion in PLACES_FUSIONS:
        places = vision.places(config.crop_pixels) ** 2
        return PLACES_FUSIONS[config.fusion](features, width, config.sharpness, places)
    return WHOLE_FUSIONS[config.fusion](features, width)


def correspondence_logit(logits: Float[Tensor, "*pairs 2"]) -> Float[Tensor, "*pairs"]:
    """One number a pair: the log-odds that the sound belongs to the picture."""
    return logits[..., CORRESPOND] - logits[..., 1 - CORRESPOND]
