"""The units of both towers with the moments of an index that activate them most, and their maps.

At most `MOST_FILES` files are looked at, spread evenly over the index, with the moments that the
index has of them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor

from looklisten.config import SIDES, Side
from looklisten.errors import SourceError
from looklisten.inference.towers import listen, look
from looklisten.inference.unit_activations import StrongestVideos
from looklisten.media.frames import fit_square, stack
from looklisten.media.isolation.parent import use_limits
from looklisten.model.l3net import L3Net
from looklisten.names import decode_name
from looklisten.search.filters import text_literal
from looklisten.search.indexing.moment_encoder import EncodedInput, MomentEncoder
from looklisten.search.indexing.source_reader import read_moment
from looklisten.search.moments import IndexedMoment
from looklisten.search.opening import open_store
from looklisten.serving.batching import Batcher
from looklisten.serving.catalog import Catalog, kind_of, shown_name, thumbnail_id
from looklisten.serving.decoding import Decoders
from looklisten.serving.records import UnitFacts, UnitMoment, UnitsReply
from looklisten.serving.refusals import RefusedError
from looklisten.system.progress import Progress

MOST_FILES = 120
MOMENTS_PER_FILE = 2
MOMENTS_PER_UNIT = 3
UNITS_PER_SIDE = 24
UNIT_MAP_DIGITS = 3


@dataclass(frozen=True, eq=False)
class _Activated(EncodedInput):
    """`vector`: how strongly each unit of the tower is activated."""

    maps: Float[np.ndarray, "units rows columns"]


class _UnitEncoder(MomentEncoder):
    """Gives the activations of the units in place of vectors for searching."""

    def __init__(self, network: L3Net, batcher: Batcher) -> None:
        super().__init__(network, with_tags=False)
        self._l3net = network
        self._batcher = batcher

    def encode_frames(
        self, frames: Sequence[UInt8[Tensor, "height width 3"]]
    ) -> list[EncodedInput]:
        config = self._l3net.config
        squares = [fit_square(frame, config.crop_pixels, config.frame_fit) for frame in frames]
        if not squares:
            return []
        return self._batcher.call_from_thread(self._activate, "vision", stack(squares))

    def encode_sounds(self, waveforms: Num[np.ndarray, "sounds samples"]) -> list[EncodedInput]:
        if not len(waveforms):
            return []
        return self._batcher.call_from_thread(self._activate, "audio", torch.from_numpy(waveforms))

    @torch.inference_mode()
    def _activate(self, side: Side, rows: Num[Tensor, "rows ..."]) -> list[EncodedInput]:
        rows = rows.to(next(self._l3net.parameters()).device)
        if side == "vision":
            # A network that reads several frames of a pair gets the same one several times.
            output = look(self._l3net, rows.repeat(1, self._l3net.config.frames_per_pair, 1, 1))
        else:
            output = listen(self._l3net, rows)
        vectors = output.vector.float().cpu().numpy()
        # Half the memory, and more digits than a screen shows.
        maps = output.map.half().cpu().numpy()
        return [_Activated(vectors[row], {}, maps[row]) for row in range(len(vectors))]


@dataclass(frozen=True, eq=False)
class _SeenMoment:
    """A moment of the index, and what it activates."""

    moment: IndexedMoment
    sides: dict[Side, _Activated]


def units_of_index(
    catalog: Catalog, network: L3Net, batcher: Batcher, decoders: Decoders, progress: Progress
) -> UnitsReply:
    """The units whose strongest moments stand out most, `UNITS_PER_SIDE` of each side.

    A unit shows at most `MOMENTS_PER_UNIT` moments, each of another file. Raises RefusedError where
    no file can be read.
    """
    encoder = _UnitEncoder(network, batcher)
    sources = catalog.playable_sources()
    step = max(len(sources) / MOST_FILES, 1)
    chosen = [sources[int(number * step)] for number in range(min(len(sources), MOST_FILES))]
    moments_of_files: list[list[_SeenMoment]] = []
    for done, source in enumerate(chosen):
        progress(done, len(chosen))
        with use_limits(decoders.worker_limits):
            moments_of_files.append(_look_at(catalog, source, encoder))
    progress(len(chosen), len(chosen))
    readable = [moments for moments in moments_of_files if moments]
    if not readable:
        raise RefusedError(422, "no file of the index can be read; are they still in their place?")
    units: list[UnitFacts] = []
    for side in SIDES:
        units += _units_of_side(side, readable, catalog)
    return UnitsReply(
        files=len(readable),
        files_of_index=len(sources),
        is_cropped=network.config.frame_fit == "crop",
        units=units,
    )


def _look_at(catalog: Catalog, source: str, encoder: MomentEncoder) -> list[_SeenMoment]:
    """Some moments of a file with their activations; none for a file that cannot be read."""
    with open_store(catalog.db) as store:
        moments = sorted(
            store.moments(f"source = {text_literal(source)}"), key=lambda each: each.seconds
        )
    seen_moments: list[_SeenMoment] = []
    for part in range(MOMENTS_PER_FILE):
        # The middles of equal parts of the file.
        number = len(moments) * (2 * part + 1) // (2 * MOMENTS_PER_FILE)
        if number >= len(moments) or (seen_moments and seen_moments[-1].moment is moments[number]):
            continue
        try:
            read = read_moment(Path(decode_name(source)), moments[number].seconds, encoder)
        except SourceError:
            continue
        sides: dict[Side, _Activated] = {}
        for side, encoded in (("vision", read.frame), ("audio", read.sound)):
            if isinstance(encoded, _Activated):
                sides[side] = encoded  # type: ignore[index]
        seen_moments.append(_SeenMoment(moments[number], sides))
    return seen_moments


def _units_of_side(side: Side, files: list[list[_SeenMoment]], catalog: Catalog) -> list[UnitFacts]:
    seen_moments = [each for moments in files for each in moments if side in each.sides]
    if not seen_moments:
        return []
    strongest = StrongestVideos(len(seen_moments[0].sides[side].vector), MOMENTS_PER_UNIT)
    rows = []
    first = 0
    for moments in files:
        vectors = [each.sides[side].vector for each in moments if side in each.sides]
        if vectors:
            values = np.stack(vectors)
            strongest.add(values.max(0), first + values.argmax(0))
            rows.append(values.max(0))
            first += len(vectors)
    activations = np.stack(rows)
    spread = activations.std(0) + 1e-6
    # Units have scales of their own, so they are compared by how far their best moment stands out.
    standing_out = (activations.max(0) - activations.mean(0)) / spread
    standing_out[strongest.moments[:, 0] < 0] = -1
    best = np.argsort(-standing_out, kind="stable")[:UNITS_PER_SIDE]
    units = []
    for unit in best[standing_out[best] >= 0].tolist():
        numbers = [number for number in strongest.moments[unit].tolist() if number >= 0]
        unit_moments = [
            _unit_moment(side, unit, seen_moments[number], catalog) for number in numbers
        ]
        tags = Counter(tag for number in numbers for tag in seen_moments[number].moment.tags)
        common = [tag for tag, count in tags.most_common(2) if count > 1]
        units.append(UnitFacts(side=side, number=unit, tags=common, moments=unit_moments))
    return units


def _unit_moment(side: Side, unit: int, seen_moment: _SeenMoment, catalog: Catalog) -> UnitMoment:
    moment = seen_moment.moment
    values = seen_moment.sides[side].maps[unit].astype(np.float32)
    # Each map has its own scale: it says where, and `activation` how much.
    unit_map = (values.clip(0) / max(float(values.max()), 1e-6)).round(UNIT_MAP_DIGITS)
    return UnitMoment(
        media=catalog.media_id(moment.source),
        name=shown_name(moment.source),
        kind=kind_of(moment.source),
        seconds=moment.seconds,
        activation=round(float(seen_moment.sides[side].vector[unit]), 4),
        unit_map=unit_map.tolist(),
        thumbnail=thumbnail_id(moment.thumbnail),
    )
