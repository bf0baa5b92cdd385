"""L3-Net whole: two towers, the front end before one of them, the fusion that answers whether a sound belongs to a picture."""

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional

from looklisten.config import ModelConfig
from looklisten.media.frames import to_unit
from looklisten.media.spectrogram import LogSpectrogram
from looklisten.model.towers import Tower, TowerOutput

CORRESPOND = 1
"""The class of the two logits that says yes."""


class ConcatFusion(nn.Module):
    """Both vectors side by side, fc1 and ReLU, fc2 to two logits (paper, figure 2)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * features, width)
        self.fc2 = nn.Linear(width, 2)

    def forward(self, vision: Float[Tensor, "*#pairs features"], audio: Float[Tensor, "*#pairs features"]) -> Float[Tensor, "*all 2"]:
        """Logits (does not, does correspond) of pairs; sides of shapes `[n, 1, f]` and `[1, m, f]` give all `[n, m, 2]`."""
        # fc1 over (vision, audio) is a sum of one product a side, so all pairs of n and m vectors cost n + m products.
        for_vision, for_audio = self.fc1.weight.chunk(2, dim=1)
        hidden = functional.linear(vision, for_vision, self.fc1.bias) + functional.linear(audio, for_audio)
        return self.fc2(functional.relu(hidden))  # type: ignore[no-any-return]


class DistanceFusion(nn.Module):
    """Each side to a unit vector by two layers of its own, their distance to two logits (AVE-Net, "Objects that Sound" 2018).

    The two sides meet in nothing but a distance, so they learn one space.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.vision = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width))
        self.audio = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width))
        self.fc3 = nn.Linear(1, 2)

    def start_right(self) -> None:
        """Begin with "near means yes", or the network may learn to be far where it agrees (section 3.1 there).

        The threshold begins at a distance of 1.2, about that of unrelated vectors behind a ReLU; both are learnt from there.
        """
        with torch.no_grad():
            self.fc3.weight.copy_(torch.tensor([[2.5], [-2.5]]))
            self.fc3.bias.copy_(torch.tensor([-3.0, 3.0]))

    def forward(self, vision: Float[Tensor, "*#pairs features"], audio: Float[Tensor, "*#pairs features"]) -> Float[Tensor, "*all 2"]:
        """Logits (does not, does correspond) of pairs; sides of shapes `[n, 1, f]` and `[1, m, f]` give all `[n, m, 2]`."""
        seen, heard = (functional.normalize(side(x).float(), dim=-1) for side, x in ((self.vision, vision), (self.audio, audio)))
        distance = (2 - 2 * (seen * heard).sum(-1, keepdim=True)).clamp_min(1e-6).sqrt()
        return self.fc3(distance)  # type: ignore[no-any-return]


FUSIONS = {"concat": ConcatFusion, "distance": DistanceFusion}


class L3Net(nn.Module):
    """The network of "Look, Listen and Learn" (ICCV 2017), section 2, at the sizes that `config` says.

    Each tower runs once for each frame and each sound; pairs are formed on the vectors.
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        self.front_end = LogSpectrogram(config.front_end)
        self.vision = Tower(3, config.widths, config.first_stride)
        self.audio = Tower(1, config.widths, config.first_stride)
        self.fusion = FUSIONS[config.fusion](config.widths[-1], config.fusion_width)
        self.apply(_initialize)
        if isinstance(self.fusion, DistanceFusion):
            self.fusion.start_right()

    def look(self, frames: Num[Tensor, "batch 3 height width"]) -> TowerOutput:
        """Frames as uint8 or as floats in 0..1, of any size that survives the pooling."""
        return self.vision(to_unit(frames) * 2 - 1)  # type: ignore[no-any-return]

    def listen(self, waveforms: Num[Tensor, "batch samples"]) -> TowerOutput:
        """Sound at 48 kHz, int16 or floats in -1..1; one second in training."""
        return self.audio(self.front_end(waveforms))  # type: ignore[no-any-return]

    def forward(self, frames: Num[Tensor, "batch 3 height width"], waveforms: Num[Tensor, "batch samples"]) -> Float[Tensor, "batch 2"]:
        """Logits (does not, does correspond) of row i of `frames` with row i of `waveforms`."""
        return self.fusion(self.look(frames).vector, self.listen(waveforms).vector)  # type: ignore[no-any-return]


def correspondence_logit(logits: Float[Tensor, "*pairs 2"]) -> Float[Tensor, "*pairs"]:
    """One number a pair: the log-odds that the sound belongs to the picture."""
    return logits[..., CORRESPOND] - logits[..., 1 - CORRESPOND]


def _initialize(module: nn.Module) -> None:
    """He initialisation (untold in the paper; the re-implementations use it), zero biases, batch-norm at 1 and 0."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
