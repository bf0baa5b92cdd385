"""Where in the frame, and where in the spectrogram: heat maps of a network's units and of its yes to the pair.

Frames are looked at whole, not cropped: the towers are convolutions, so a map covers what the frame covers.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looklisten.data.cutting import PrepareSettings, cut
from looklisten.data.shards import Clip
from looklisten.data.sources import Source
from looklisten.errors import ConfigError
from looklisten.inference.embed import Moment, moments
from looklisten.media.frames import stack
from looklisten.model.l3net import L3Net, correspondence_logit
from looklisten.model.towers import TowerOutput

PATH_STEPS = 16

Method = Literal["unit", "correspondence"]


@dataclass(frozen=True, eq=False)
class HeatMap:
    """`values` at least 0, `[rows, columns]`, over a whole frame (rows down) or a whole spectrogram (rows from low to high)."""

    values: Float[np.ndarray, "rows columns"]
    at_seconds: float

    def peak(self) -> tuple[float, float]:
        """The centre of the strongest place as (x, y) in 0..1 from the top left."""
        row, column = np.unravel_index(int(self.values.argmax()), self.values.shape)
        return (float(column) + 0.5) / self.values.shape[1], (float(row) + 0.5) / self.values.shape[0]


@dataclass(frozen=True, eq=False)
class Localization:
    """One moment with its maps: over its frame and over the spectrogram of its second."""

    moment: Moment
    spectrogram: Float[np.ndarray, "bands columns"]
    frame_map: HeatMap
    sound_map: HeatMap
    probability: float
    """How sure the network is that sound and frame belong together."""
    method: str
    units: tuple[int, int] | None
    """The vision and audio units that were followed; None for `correspondence`."""

    @property
    def at_seconds(self) -> float:
        """The moment's place in the video."""
        return self.moment.clip.start_seconds + self.moment.frame_seconds


def localize_moments(
    model: L3Net, batch: Sequence[Moment], method: Method = "correspondence", units: tuple[int, int] | None = None
) -> list[Localization]:
    """Maps of moments whose frames are of one size.

    `unit`: where one unit of the last convolution fires (paper, section 4.3): in each tower the unit `units` names, or the one
    that fires most in this moment. It depends on its own side alone. `correspondence`: where those units fire that raise the
    correspondence logit, each as strong as it raises it (Grad-CAM, Selvaraju et al. 2017, equation 2, over conv4_2 after
    batch-norm and ReLU), so it depends on the other side too.

    Values are as the network has them; `localize` brings those of one source to 0..1.
    """
    device = next(model.parameters()).device
    frames = stack([moment.seen for moment in batch]).to(device)
    waveforms = torch.from_numpy(np.stack([moment.waveform for moment in batch])).to(device)
    with torch.no_grad():
        seen, heard = model.look(frames), model.listen(waveforms)
        spectrograms = model.front_end(waveforms)[:, 0].float().cpu().numpy()
    vision, audio = seen.vector.float(), heard.vector.float()
    with torch.no_grad():
        probability = torch.sigmoid(correspondence_logit(model.fusion(vision, audio)))
    slopes = (_slopes(lambda some: model.fusion(some, audio), vision), _slopes(lambda some: model.fusion(vision, some), audio))
    chosen: list[list[int]] = []
    maps = []
    for side, (tower, slope) in enumerate(((seen, slopes[0]), (heard, slopes[1]))):
        if method == "unit":
            followed = tower.vector.argmax(1) if units is None else torch.full((len(batch),), units[side], device=device)
            chosen.append(followed.tolist())
            maps.append(_unit_maps(tower, followed))
        else:
            maps.append(_gradient_maps(tower, slope))
    frame_maps, sound_maps = (values.cpu().numpy() for values in maps)
    return [
        Localization(
            moment=moment,
            spectrogram=spectrograms[i],
            frame_map=HeatMap(frame_maps[i], moment.clip.start_seconds + moment.frame_seconds),
            sound_map=HeatMap(sound_maps[i], moment.clip.start_seconds + moment.start_seconds),
            probability=float(probability[i]),
            method=method,
            units=(chosen[0][i], chosen[1][i]) if chosen else None,
        )
        for i, moment in enumerate(batch)
    ]


def _unit_maps(tower: TowerOutput, units: Tensor) -> Float[Tensor, "batch rows columns"]:
    return tower.map[torch.arange(len(units)), units].float()


def _slopes(answer: Callable[[Tensor], Tensor], vector: Float[Tensor, "batch units"]) -> Float[Tensor, "batch units"]:
    """How steeply each unit raises the correspondence logit, on the way from nothing to `vector`; units that lower it count 0.

    A network that is sure has hardly any gradient left where it stands, so the gradient is averaged over the straight path
    from zero (integrated gradients, Sundararajan et al. 2017). On the synthetic world the two together took pointing from
    0.73 to 0.91 (LOG.md, 2026-11-22).
    """
    total = torch.zeros_like(vector)
    for step in range(PATH_STEPS):
        with torch.enable_grad():
            point = (vector * ((step + 0.5) / PATH_STEPS)).requires_grad_()
            total += torch.autograd.grad(correspondence_logit(answer(point)).sum(), point)[0]
    return (total / PATH_STEPS).clamp_min(0)


def _gradient_maps(tower: TowerOutput, slopes: Float[Tensor, "batch units"]) -> Float[Tensor, "batch rows columns"]:
    """Each vector is a maximum over places, so a unit's slope is the logit's gradient summed over the unit's places."""
    return torch.einsum("bu,buhw->bhw", slopes, tower.map.float())


def _to_unit(found: list[Localization]) -> list[Localization]:
    """Maps over the highest value of all moments, so that brightness compares from one to the next.

    Those that depend on both sides are weighed by the probability that the pair corresponds: a sound from elsewhere leaves
    the frame dark.
    """
    highest = {
        side: max((float(getattr(one, side).values.max()) for one in found), default=0.0) or 1.0 for side in ("frame_map", "sound_map")
    }

    def scaled(one: Localization, side: str) -> HeatMap:
        heat: HeatMap = getattr(one, side)
        weight = one.probability if one.method == "correspondence" else 1.0
        return replace(heat, values=heat.values * (weight / highest[side]))

    return [replace(one, frame_map=scaled(one, "frame_map"), sound_map=scaled(one, "sound_map")) for one in found]


def localize(
    source: str | Path | Clip | Iterable[Clip],
    model: L3Net,
    every_seconds: float = 1.0,
    method: Method = "correspondence",
    units: tuple[int, int] | None = None,
) -> list[Localization]:
    """Maps through a video file (or clips of one video): one about every `every_seconds` seconds, in 0..1 over all of them.

    Raises SourceError when the file is no video with picture and sound, ConfigError for a unit that the network lacks.
    """
    features = model.config.widths[-1]
    if units is not None and not all(0 <= unit < features for unit in units):
        raise ConfigError(f"the network has units 0 to {features - 1}; {units[0]} and {units[1]} were asked for")
    if every_seconds <= 0:
        raise ConfigError(f"every_seconds {every_seconds:g} must be above 0")
    if isinstance(source, (str, Path)):
        path = Path(source)
        size = path.stat().st_size if path.is_file() else 0
        clips: Iterable[Clip] = cut(path, Source(path.name, size), PrepareSettings())
    else:
        clips = [source] if isinstance(source, Clip) else source
    found: list[Localization] = []
    model.eval()
    for clip in clips:
        count = max(round(clip.duration_seconds / every_seconds), 1)
        batch = list(moments(clip, model.config, count))
        for start in range(0, len(batch), 16):
            found.extend(localize_moments(model, batch[start : start + 16], method, units))
    return _to_unit(found)
