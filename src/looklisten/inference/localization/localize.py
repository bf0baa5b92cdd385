"""Where in the frame, and where in the spectrogram: heat maps of a network's units and of its yes
to the pair.

Frames are looked at whole, not cropped: the towers are convolutions, so a map covers what the frame
covers.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looklisten.data.clips import Clip
from looklisten.data.cutting import CutReport, cut
from looklisten.data.options import PrepareOptions
from looklisten.data.sources import Source
from looklisten.errors import ConfigError
from looklisten.inference.localization.enlarge import enlarged
from looklisten.inference.localization.options import Method
from looklisten.inference.moments import Moment, moment_at
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.frames import stack
from looklisten.media.isolation.parent import stream_isolated
from looklisten.media.levels import is_silent
from looklisten.media.spectrogram import WINDOW_SAMPLES, WINDOW_SECONDS
from looklisten.model.backbones.backbone import TowerOutput
from looklisten.model.fusions import AlignedFusion, Fusion, SimilarityFusion, correspondence_logit
from looklisten.model.l3net import L3Net

BATCH = 16
PATH_STEPS = 16


@dataclass(frozen=True, eq=False)
class HeatMap:
    """`values` at least 0, `[rows, columns]`, over a whole frame (rows down) or a whole spectrogram
    (rows from low to high).
    """

    values: Float[np.ndarray, "rows columns"]
    at_seconds: float

    def peak(self) -> tuple[float, float]:
        """The center of the strongest place as (x, y) in 0..1 from the top left."""
        row, column = np.unravel_index(int(self.values.argmax()), self.values.shape)
        return (float(column) + 0.5) / self.values.shape[1], (float(row) + 0.5) / self.values.shape[
            0
        ]

    def enlarged(self, height: int, width: int) -> Float[np.ndarray, "height width"]:
        """The map at the size of what it covers, such as the frame's own; bilinear."""
        return enlarged(self.values, height, width)


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
    def weight(self) -> float:
        """What the maps count: those that ask the other side, as much as the pair is likely to
        correspond; where there is nothing to hear, nothing, for no network was ever asked about
        silence.
        """
        if self.method == "unit":
            return 1.0
        return 0.0 if is_silent(self.moment.waveform) else self.probability

    @property
    def at_seconds(self) -> float:
        """The moment's place in the video."""
        return self.moment.clip.start_seconds + self.moment.frame_seconds


def usual_method(model: L3Net) -> Method:
    """The method whose maps point best (benchmarks/RESULTS.md): `similarity` of a network that was
    trained by it.
    """
    return "similarity" if isinstance(model.fusion, SimilarityFusion) else "correspondence"


def localize_moments(
    model: L3Net,
    batch: Sequence[Moment],
    method: Method | None = None,
    units: tuple[int, int] | None = None,
    around_seconds: float = WINDOW_SECONDS,
) -> list[Localization]:
    """Maps of moments whose frames are of one size.

    `unit`: where one unit of the last convolution fires (paper, section 4.3): in each tower the
        unit `units` names, or the one that fires most in this moment. It depends on its own side
        alone. `correspondence`: where those units fire that raise the correspondence logit, each as
        strong as it raises it (Grad-CAM, Selvaraju et al. 2017, equation 2, over conv4_2 after
        batch-norm and ReLU), so it depends on the other side too. `similarity`: how sure the
        network is, 0..1, that a place alone belongs to the other side ("Objects that Sound" 2018);
        it needs a network whose sides share a space. Of a network that hears moments (fusion
        "dense") the map of the frame is that of the moments within `around_seconds` around it.

    None: the usual one of the network. Values are as the network has them; `localize` brings those
        of one source to one scale. Raises ConfigError where the method cannot be.
    """
    method = method or usual_method(model)
    device = next(model.parameters()).device
    frames = stack([moment.vision_input for moment in batch]).to(device)
    waveforms = torch.from_numpy(np.stack([moment.waveform for moment in batch])).to(device)
    with torch.no_grad():
        seen, heard = model.look(frames), model.listen(waveforms)
        spectrograms = model.front_end(waveforms)[:, 0].float().cpu().numpy()
        probability = (
            torch.sigmoid(correspondence_logit(model.fusion(*model.fusion.read(seen, heard))))
            .cpu()
            .numpy()
        )
    chosen = _followed(seen, heard, units) if method == "unit" else None
    if chosen:
        maps = tuple(
            tower.map[torch.arange(len(batch)), list(fired)]
            for tower, fired in zip((seen, heard), chosen, strict=True)
        )
    else:
        maps = (
            _similarities(model, seen, heard, _near(heard, batch, around_seconds))
            if method == "similarity"
            else _gradients(model.fusion, seen, heard)
        )
    frame_maps, sound_maps = (values.float().cpu().numpy() for values in maps)
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


Maps = tuple[Float[Tensor, "batch rows columns"], Float[Tensor, "batch bands moments"]]
"""Over frames and over spectrograms."""


def _followed(
    seen: TowerOutput, heard: TowerOutput, units: tuple[int, int] | None
) -> tuple[list[int], list[int]]:
    """The vision and the audio unit of each row."""
    if units is not None:
        return [units[0]] * len(seen.vector), [units[1]] * len(heard.vector)
    return seen.vector.argmax(1).tolist(), heard.vector.argmax(1).tolist()


@torch.no_grad()
def _similarities(
    model: L3Net, seen: TowerOutput, heard: TowerOutput, near: Float[Tensor, "batch moments"]
) -> Maps:
    """Every place by itself through the layers that its side's vector goes through, and the
    threshold of the yes.

    `near`: what each moment of the sound counts for the frame.
    """
    fusion = model.fusion
    if not isinstance(fusion, AlignedFusion):
        raise ConfigError(
            f'this network was trained with fusion "{model.config.fusion}", whose two sides share no space to compare places in; '
            f"take the method correspondence, or train one with the recipe similarity, dense, contrastive or tiny"
        )
    every = [tower.map.flatten(2).transpose(1, 2) for tower in (seen, heard)]
    places, cells = fusion.project(*every)
    eyes, ears = (_parts(side) for side in fusion.project(*fusion.read(seen, heard)))
    counts = near.to(ears) if ears.shape[1] > 1 else near.new_ones(1, 1).to(ears)
    of_places = (places @ ears.transpose(1, 2) * counts[:, None]).sum(2)
    alike = cells @ eyes.transpose(1, 2)
    of_cells = fusion.best(alike, 2) if isinstance(fusion, SimilarityFusion) else alike[..., 0]
    sure = [
        torch.sigmoid(correspondence_logit(fusion.decide(similar)))
        for similar in (of_places, of_cells)
    ]
    return sure[0].view_as(seen.map[:, 0]), sure[1].view_as(heard.map[:, 0])


def _near(
    heard: TowerOutput, batch: Sequence[Moment], around_seconds: float
) -> Float[Tensor, "batch moments"]:
    """Equal weights of the moments of the sound's map that lie around each frame, at least the
    nearest one's; they sum to 1.
    """
    moments = heard.map.shape[3]
    middles = (torch.arange(moments) + 0.5) / moments * WINDOW_SECONDS
    of_frames = torch.tensor([moment.frame_seconds - moment.start_seconds for moment in batch])
    apart = (middles - of_frames[:, None]).abs()
    reach = apart.amin(1, keepdim=True).clamp_min(
        around_seconds / 2 if around_seconds < WINDOW_SECONDS else WINDOW_SECONDS
    )
    inside = (apart <= reach).float()
    return inside / inside.sum(1, keepdim=True)


def _parts(side: Float[Tensor, "batch *parts width"]) -> Float[Tensor, "batch parts width"]:
    """What a fusion compares of a row, be it one vector or several."""
    return side.reshape(len(side), -1, side.shape[-1])


def _gradients(fusion: Fusion, seen: TowerOutput, heard: TowerOutput) -> Maps:
    """Units over all places, each as strong as it raises the correspondence logit; units that lower
    it count 0.

    A network that is sure has hardly any gradient left where it stands, so the gradient is averaged
    over the straight path from zero to a tower's map (integrated gradients, Sundararajan et al.
    2017). On the synthetic world the two together took pointing from 0.73 to 0.91 (LOG.md,
    2026-11-22).
    """
    of_seen = _slopes(lambda some: fusion(*fusion.read(some, heard)), seen)
    of_heard = _slopes(lambda some: fusion(*fusion.read(seen, some)), heard)
    frames, sounds = (
        torch.einsum("bu,buhw->bhw", s, tower.map.float())
        for s, tower in ((of_seen, seen), (of_heard, heard))
    )
    return frames, sounds


def _slopes(
    answer: Callable[[TowerOutput], Tensor], tower: TowerOutput
) -> Float[Tensor, "batch units"]:
    """The mean slope of the correspondence logit along the way, summed over a unit's places."""
    total = torch.zeros_like(tower.vector)
    for step in range(PATH_STEPS):
        share = (step + 0.5) / PATH_STEPS
        with torch.enable_grad():
            point = (tower.map * share).requires_grad_()
            on_the_way = TowerOutput(tower.conv4_2, point, point.amax((2, 3)))
            total += torch.autograd.grad(correspondence_logit(answer(on_the_way)).sum(), point)[
                0
            ].sum((2, 3))
    return (total / PATH_STEPS).clamp_min(0)


def _highest(found: Sequence[Localization], side: str) -> float:
    return max((float(getattr(one, side).values.max()) for one in found), default=0.0) or 1.0


def to_unit(found: Sequence[Localization]) -> list[Localization]:
    """Maps of one source on one scale, 0..1, so that brightness compares from one moment to the
    next.

    Probabilities are on one; other maps are divided by the highest value of all. Those that depend
    on both sides are weighed by the probability that the pair corresponds: a sound from elsewhere
    leaves the frame dark.
    """
    highest = {
        side: 1.0 if all(one.method == "similarity" for one in found) else _highest(found, side)
        for side in ("frame_map", "sound_map")
    }

    def scaled(one: Localization, side: str) -> HeatMap:
        heat: HeatMap = getattr(one, side)
        return replace(heat, values=heat.values * (one.weight / highest[side]))

    return [
        replace(one, frame_map=scaled(one, "frame_map"), sound_map=scaled(one, "sound_map"))
        for one in found
    ]


def localize(
    source: str | Path | Clip | Iterable[Clip],
    model: L3Net,
    every_seconds: float = 1.0,
    method: Method | None = None,
    units: tuple[int, int] | None = None,
    at_seconds: Sequence[float] | None = None,
) -> list[Localization]:
    """Maps through a video file (or clips of one video), in 0..1 over all of them: one every
    `every_seconds`, or at `at_seconds`.

    Each is of the stored frame nearest to the moment, with the second of sound around it. Raises
    SourceError when the file is no video with picture and sound, ConfigError for what the network
    lacks and for a time that the video has not.
    """
    return to_unit(list(localize_each(source, model, every_seconds, method, units, at_seconds)))


def localize_each(
    source: str | Path | Clip | Iterable[Clip],
    model: L3Net,
    every_seconds: float = 1.0,
    method: Method | None = None,
    units: tuple[int, int] | None = None,
    at_seconds: Sequence[float] | None = None,
) -> Iterator[Localization]:
    """What `localize` finds, one after the other and as the network has it, so that a long video
    need not fit into memory.
    """
    features = model.config.widths[-1]
    if units is not None and not all(0 <= unit < features for unit in units):
        raise ConfigError(
            f"the network has units 0 to {features - 1}; {units[0]} and {units[1]} were asked for"
        )
    if every_seconds <= 0:
        raise ConfigError(f"every_seconds {every_seconds:g} must be above 0")
    wanted = None if at_seconds is None else np.sort(np.array(at_seconds, dtype=np.float64))
    around = min(every_seconds, WINDOW_SECONDS) if wanted is None else WINDOW_SECONDS
    model.eval()
    asked, last = 0, 0.0
    for clip in _clips(source):
        last = clip.start_seconds + clip.duration_seconds
        if wanted is None:
            count = max(round(clip.duration_seconds / every_seconds), 1)
            times = (np.arange(count) + 0.5) * clip.duration_seconds / count
        else:
            times = wanted[(wanted >= clip.start_seconds) & (wanted < last)] - clip.start_seconds
        asked += len(times)
        moments = (_moment_around(clip, model, float(at)) for at in times)
        for batch in _of_one_size(moments):
            yield from localize_moments(model, batch, method, units, around)
    if wanted is not None and asked < len(wanted):
        raise ConfigError(
            f"of the {len(wanted)} times asked for {len(wanted) - asked} lie where the video, {last:.2f} s, has no picture with sound"
        )


def _clips(source: str | Path | Clip | Iterable[Clip]) -> Iterable[Clip]:
    if isinstance(source, (str, Path)):
        path = Path(source)
        about = Source(path.name, path.stat().st_size if path.is_file() else 0)
        return stream_isolated(cut, path, about, PrepareOptions(), source=path, report=CutReport())
    return [source] if isinstance(source, Clip) else source


def _of_one_size(moments: Iterable[Moment]) -> Iterator[list[Moment]]:
    """Neighboring moments in batches; a new one begins where the picture changes its size, as
    broadcasts do.
    """
    batch: list[Moment] = []
    for moment in moments:
        if batch and (
            len(batch) == BATCH or batch[0].vision_input.shape != moment.vision_input.shape
        ):
            yield batch
            batch = []
        batch.append(moment)
    if batch:
        yield batch


def _moment_around(clip: Clip, model: L3Net, at_seconds: float) -> Moment:
    """The stored frame nearest to a moment of a clip, in the middle of its second of sound, or as
    near as the clip's ends allow.
    """
    # Rounded, so that of two frames equally near it is always the earlier one.
    frame = int(np.abs(np.array(clip.frame_seconds) - at_seconds).round(6).argmin())
    start = round((clip.frame_seconds[frame] - WINDOW_SECONDS / 2) * SAMPLE_RATE_HZ)
    return moment_at(
        clip, model.config, int(np.clip(start, 0, len(clip.waveform) - WINDOW_SAMPLES)), frame
    )
