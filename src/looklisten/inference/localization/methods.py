"""The methods of localization: a network and moments -> heat maps. Knows no file.

The towers are convolutions, so a whole frame can be their input, without a crop. The map then
covers the whole frame.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looklisten.errors import ConfigError
from looklisten.inference.localization.options import Method
from looklisten.inference.localization.records import HeatMap, Localization
from looklisten.inference.moments import Moment
from looklisten.inference.towers import listen, look
from looklisten.media.frames import stack
from looklisten.media.levels import is_silent
from looklisten.media.spectrogram import WINDOW_SECONDS
from looklisten.model.backbones import TowerOutput
from looklisten.model.backbones.backbone import pool
from looklisten.model.fusions import Fusion, correspondence_logit
from looklisten.model.l3net import L3Net

GRADIENT_STEPS = 16
"""Points on the path that `correspondence` averages gradients over."""

Maps = tuple[Float[Tensor, "batch rows columns"], Float[Tensor, "batch bands sound_columns"]]
"""Maps over frames, maps over spectrograms."""


def default_method(model: L3Net) -> Method:
    """The method with the highest pointing accuracy for this network (benchmarks/RESULTS.md)."""
    return "similarity" if model.fusion.compares_positions else "correspondence"


def localize_moments(
    model: L3Net,
    moments: Sequence[Moment],
    method: Method | None = None,
    units: tuple[int, int] | None = None,
    around_seconds: float = WINDOW_SECONDS,
) -> list[Localization]:
    """Heat maps of moments whose frames have one size. Values are not normalized.

    `unit`: the response of one unit of the last convolution (paper, section 4.3). In each tower
        this is the unit that `units` names, or the unit that responds most. The map of one side
        does not depend on the other side.
    `correspondence`: the units that raise the correspondence logit, each weighted by how much it
        raises it (Grad-CAM, Selvaraju et al. 2017, equation 2). Both sides matter.
    `similarity`: for each position the probability, 0..1, that it corresponds to the other side
        ("Objects that Sound", 2018). The network needs a fusion that compares sides in one space.
        Fusion `dense` compares a frame with each column of the sound's map. Then only columns
        within `around_seconds` around the frame count.

    `method` None is the default of the network. Raises ConfigError when the network does not
    support the method.
    """
    method = method or default_method(model)
    device = next(model.parameters()).device
    frames = stack([moment.vision_input for moment in moments]).to(device)
    stacked_waveforms = np.stack([moment.waveform for moment in moments])
    waveforms = torch.from_numpy(stacked_waveforms).to(device)
    with torch.no_grad():
        vision = look(model, frames)
        audio = listen(model, waveforms)
        spectrograms = model.front_end(waveforms)[:, 0].float().cpu().numpy()
        logits = model.fusion(*model.fusion.features(vision, audio))
        probabilities = torch.sigmoid(model.log_odds(logits)).cpu().numpy()
    followed_units = None
    if method == "unit":
        followed_units = _followed_units(vision, audio, units)
        maps = _unit_maps(vision, audio, followed_units)
    elif method == "similarity":
        column_weights = _column_weights(audio, moments, around_seconds)
        maps = _similarity_maps(model, vision, audio, column_weights)
    else:
        maps = _correspondence_maps(model.fusion, vision, audio)
    frame_maps, sound_maps = (values.float().cpu().numpy() for values in maps)
    localizations = []
    for row, moment in enumerate(moments):
        clip = moment.clip
        localization = Localization(
            at_seconds=clip.start_seconds + moment.frame_seconds,
            sound_start_seconds=clip.start_seconds + moment.start_seconds,
            clip_seconds=(clip.start_seconds, clip.start_seconds + clip.duration_seconds),
            spectrogram=spectrograms[row],
            frame_map=HeatMap(frame_maps[row]),
            sound_map=HeatMap(sound_maps[row]),
            probability=float(probabilities[row]),
            method=method,
            units=followed_units[row] if followed_units else None,
            is_silent=is_silent(moment.waveform),
            holds_probability=method == "similarity" and model.fusion.shows_answer,
        )
        localizations.append(localization)
    return localizations


def _followed_units(
    vision: TowerOutput, audio: TowerOutput, units: tuple[int, int] | None
) -> list[tuple[int, int]]:
    """For each moment the vision unit and the audio unit of its maps."""
    if units is not None:
        return [units] * len(vision.vector)
    vision_units = vision.vector.argmax(1).tolist()
    audio_units = audio.vector.argmax(1).tolist()
    return list(zip(vision_units, audio_units, strict=True))


def _unit_maps(
    vision: TowerOutput, audio: TowerOutput, followed_units: Sequence[tuple[int, int]]
) -> Maps:
    rows = torch.arange(len(followed_units))
    vision_units, audio_units = map(list, zip(*followed_units, strict=True))
    return vision.map[rows, vision_units], audio.map[rows, audio_units]


@torch.no_grad()
def _similarity_maps(
    model: L3Net,
    vision: TowerOutput,
    audio: TowerOutput,
    column_weights: Float[Tensor, "batch sound_columns"],
) -> Maps:
    """Each position by itself, compared with the vectors of the other side."""
    fusion = model.fusion
    if not fusion.shares_space:
        raise ConfigError(
            f'this network was trained with fusion "{model.config.fusion}", which does not put '
            f"frames and sound into one space, so positions cannot be compared; use the method "
            f"correspondence, or train with the recipe general, dense, contrastive or tiny"
        )
    # Each position goes through the layers that a vector of its side goes through.
    sound_features = audio.map.flatten(2).transpose(1, 2)
    frame_positions, sound_positions = fusion.project(fusion.map_positions(vision), sound_features)
    projected = fusion.project(*fusion.features(vision, audio))
    vision_vectors, audio_vectors = (_as_several_vectors(vectors) for vectors in projected)
    if audio_vectors.shape[1] > 1:
        weights = column_weights.to(audio_vectors)
    else:
        weights = column_weights.new_ones(1, 1).to(audio_vectors)
    frame_similarities = frame_positions @ audio_vectors.transpose(1, 2)
    frame_scores = (frame_similarities * weights[:, None]).sum(2)
    pair_scores = fusion.whole_frame_similarity(audio_vectors @ vision_vectors.transpose(1, 2))
    frame_scores = fusion.shown_similarities(frame_scores, pair_scores.mean(1), vision)
    sound_similarities = sound_positions @ vision_vectors.transpose(1, 2)
    sound_scores = fusion.whole_frame_similarity(sound_similarities)
    frame_map = torch.sigmoid(model.log_odds(fusion.similarity_logits(frame_scores)))
    sound_map = torch.sigmoid(model.log_odds(fusion.similarity_logits(sound_scores)))
    return frame_map.view_as(vision.map[:, 0]), sound_map.view_as(audio.map[:, 0])


def _as_several_vectors(
    vectors: Float[Tensor, "batch *several width"],
) -> Float[Tensor, "batch several width"]:
    """What a fusion compares of a row as a list of vectors; of some fusions it has length 1."""
    return vectors.reshape(len(vectors), -1, vectors.shape[-1])


def _column_weights(
    audio: TowerOutput, moments: Sequence[Moment], around_seconds: float
) -> Float[Tensor, "batch sound_columns"]:
    """Weights of the columns of the sound's map for each frame; they sum to 1.

    Columns within `around_seconds` around the frame count equally, and the nearest one always.
    """
    columns = audio.map.shape[3]
    column_seconds = (torch.arange(columns, dtype=torch.float32) + 0.5) / columns * WINDOW_SECONDS
    inside_seconds = [moment.frame_seconds - moment.start_seconds for moment in moments]
    frame_seconds = torch.tensor(inside_seconds, dtype=torch.float32)
    distances = (column_seconds - frame_seconds[:, None]).abs()
    # A full window means all columns, also where the frame is not in its middle.
    reach = around_seconds / 2 if around_seconds < WINDOW_SECONDS else WINDOW_SECONDS
    is_near = distances <= distances.amin(1, keepdim=True).clamp_min(reach)
    weights = is_near.float()
    return weights / weights.sum(1, keepdim=True)


def _correspondence_maps(fusion: Fusion, vision: TowerOutput, audio: TowerOutput) -> Maps:
    """The units of each position, weighted by how much they raise the correspondence logit.

    Units that lower it count 0.
    """

    def logit_of_vision(tower: TowerOutput) -> Tensor:
        return correspondence_logit(fusion(*fusion.features(tower, audio)))

    def logit_of_audio(tower: TowerOutput) -> Tensor:
        return correspondence_logit(fusion(*fusion.features(vision, tower)))

    vision_weights = _unit_weights(logit_of_vision, vision)
    audio_weights = _unit_weights(logit_of_audio, audio)
    return _weighted_sum(vision_weights, vision), _weighted_sum(audio_weights, audio)


def _weighted_sum(
    weights: Float[Tensor, "batch units"], tower: TowerOutput
) -> Float[Tensor, "batch rows columns"]:
    return torch.einsum("bu,buhw->bhw", weights, tower.map.float())


def _unit_weights(
    logit: Callable[[TowerOutput], Tensor], tower: TowerOutput
) -> Float[Tensor, "batch units"]:
    """Mean gradient of the logit for each unit, summed over positions; at least 0."""
    # A network that is sure has almost no gradient at its own map. So the gradient is averaged
    # over the straight path from zero to that map (integrated gradients, Sundararajan et al.
    # 2017). On synthetic videos this raised pointing accuracy from 0.73 to 0.91 (LOG.md,
    # 2026-11-22).
    total = torch.zeros_like(tower.vector)
    for step in range(GRADIENT_STEPS):
        share = (step + 0.5) / GRADIENT_STEPS
        with torch.enable_grad():
            point = (tower.map * share).requires_grad_()
            scaled = TowerOutput(point, pool(point, tower.pooling), pooling=tower.pooling)
            (gradient,) = torch.autograd.grad(logit(scaled).sum(), point)
            total += gradient.sum((2, 3))
    return (total / GRADIENT_STEPS).clamp_min(0)
