"""Who answers questions with maps: a network by each of its methods, the same network untrained,
and rules that see no picture.

Knows no truth but that of the rule "the largest object", and no score.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from looklisten.errors import SourceError
from looklisten.evaluation.linear_probe.features import set_batch_norm
from looklisten.evaluation.localization.metrics import Map
from looklisten.evaluation.localization.questions import Marked, Question
from looklisten.inference.localization.localize import BATCH, localize_moments
from looklisten.inference.localization.options import Method
from looklisten.inference.moments import Moment
from looklisten.media.frames import stack
from looklisten.model.l3net import L3Net

CALIBRATION_MOMENTS = 256
"""Moments that batch-norm statistics of the untrained network are set from."""
CENTER_CELLS = 33

Asked = tuple[Question, Moment]
"""A question, and the moment that the network is shown."""
Shown = tuple[Map, float]
"""A map as it is, and what it counts: 0 leaves it dark."""


@dataclass(frozen=True, eq=False)
class Contender:
    """Whoever answers questions with maps."""

    name: str
    maps: Callable[[Sequence[Asked]], list[Shown]]
    threshold: float | None = None
    """Where a map says yes to a place; None is half the mean peak of its own matched maps."""
    hears: bool = False


def network(model: L3Net, method: Method, untrained: bool = False) -> Contender:
    """A network by one of its methods; values of similarity are probabilities, so that one half
    means yes.
    """

    def maps(batch: Sequence[Asked]) -> list[Shown]:
        return [
            (one.frame_map.values, one.weight)
            for one in localize_moments(model, [moment for _, moment in batch], method)
        ]

    name = f"untrained, {method}" if untrained else method
    return Contender(
        name,
        maps,
        0.5 if method == "similarity" else None,
        hears=method != "unit" and not untrained,
    )


def rules(items: Sequence[Marked]) -> Iterator[Contender]:
    """The middle of the picture; its largest object, where silent ones are marked too; all of it."""
    across = np.linspace(-1, 1, CENTER_CELLS, dtype=np.float32)
    middle = 1 - np.hypot(across[:, None], across[None]) / np.float32(2**0.5)
    whole = np.ones((1, 1), np.float32)
    yield Contender("center", lambda batch: [(middle, 1.0)] * len(batch))
    if any(one.silent for one in items):
        yield Contender(
            "largest object",
            lambda batch: [(question.marked.largest, 1.0) for question, _ in batch],
        )
    yield Contender("whole picture", lambda batch: [(whole, 1.0)] * len(batch))


def untrained_for(model: L3Net, items: Sequence[Marked], seed: int) -> L3Net:
    """A network of the same shape as it begins, its batch-norm statistics set from moments that it
    will be asked about.

    That makes it as strong as it can be. Those that cannot be read are left out.
    """
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    rival = L3Net(model.config).to(device)
    some = np.random.default_rng(seed).permutation(len(items))[:CALIBRATION_MOMENTS]
    own = (Question("matched", items[int(number)], items[int(number)], ()) for number in some)

    def forward(batch: Sequence[Asked]) -> None:
        rival.look(stack([moment.seen for _, moment in batch]).to(device))
        rival.listen(
            torch.from_numpy(np.stack([moment.waveform for _, moment in batch])).to(device)
        )

    return set_batch_norm(rival, forward, read(own, {}))


def read(asked: Iterable[Question], failures: dict[str, str]) -> Iterator[list[Asked]]:
    """The questions with their moments, in batches of frames of one size; `failures` gets the
    videos that cannot be read, and why.

    A frame about which several questions are asked in turn is read once.
    """
    waiting: dict[tuple[int, ...], list[Asked]] = {}
    marked, frame = None, None
    for question in asked:
        if question.marked is not marked:
            marked, frame = question.marked, _read(question.marked, failures)
        sound = frame if question.sound in (None, marked) else _read(question.sound, failures)
        if frame is None or sound is None:
            continue
        size = tuple(frame.frame.shape)
        waiting.setdefault(size, []).append((question, question.moment(frame, sound)))
        if len(waiting[size]) == BATCH:
            yield waiting.pop(size)
    yield from waiting.values()


def _read(one: Marked, failures: dict[str, str]) -> Moment | None:
    try:
        return one.read()
    except SourceError as error:
        failures.setdefault(one.video_id, str(error))
        return None
