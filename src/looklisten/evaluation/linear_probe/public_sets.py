"""The paper's linear probes of public sets: a table of one network beside those that it has to beat
and what others reported.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from looklisten.evaluation.intervals import interval
from looklisten.evaluation.linear_probe.audio import clip_statistics, sound_vectors
from looklisten.evaluation.linear_probe.baselines import RIVALS, Rival, contenders
from looklisten.evaluation.linear_probe.crossvalidation import LOGISTIC, SVM, Folds
from looklisten.evaluation.linear_probe.features import Extractor
from looklisten.evaluation.linear_probe.image_protocol import (
    EPOCHS,
    KEPT_BYTES,
    Pictures,
    picture_answers,
)
from looklisten.evaluation.linear_probe.images import VIEWS, picture_vectors
from looklisten.evaluation.sets.published import Published
from looklisten.evaluation.sets.registry import Benchmark, SetName, open_benchmark
from looklisten.inference.encoder import Encoder
from looklisten.model.l3net import L3Net
from looklisten.system.devices import choose_device
from looklisten.system.progress import Progress, no_progress

FAILURES_TOLD = 5


@dataclass(frozen=True)
class ProbeRow:
    """How well a linear classifier on one network's vectors names the items of the tested folds."""

    name: str
    accuracy: float
    """The mean over the tested folds."""
    deviation: float
    """The standard deviation over the tested folds; NaN where there is one."""
    ci95: tuple[float, float]
    """Over items."""
    folds: tuple[float, ...]
    features: int
    chosen: tuple[str, ...]
    """What was chosen for each tested fold without a look at it: the cost of the classifier, or how
    the layer was trained.
    """
    drawings: tuple[float, ...] = ()
    """Of an untrained network that was drawn several times the accuracy of each; the other figures
    are means over them, the interval's ends too, and what was chosen is the first one's.
    """


@dataclass(frozen=True)
class SetProbe:
    """A table: the network, its rivals, and what others reported on the same set."""

    dataset: str
    layer: str
    items: int
    classes: int
    tested_folds: tuple[str, ...]
    chance: float
    """The share of the most frequent class among the tested items."""
    failed: int
    """Items that could not be read; they are in no figure."""
    failures: tuple[str, ...]
    """Why, of the first of them."""
    rows: tuple[ProbeRow, ...]
    published: tuple[Published, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"published": [row._asdict() for row in self.published]}


def probe_set(
    dataset: SetName,
    path: str | Path,
    model: str | Path | L3Net | Encoder,
    compare: Sequence[Rival] | None = None,
    layer: str = "conv4_2",
    cache: str | Path | None = None,
    partial: bool = False,
    device: str = "auto",
    progress: Progress = no_progress,
    drawings: int | None = None,
) -> SetProbe:
    """What a linear classifier reads from `model`'s frozen vectors of a public set, by the paper's
    protocol (sections 4.1 and 4.2).

    `model` may be a run's folder, a network, or `untrained:RECIPE`; all of `RIVALS` stand beside it
    unless `compare` names some. Vectors are kept in `cache`, without which they are computed anew
    each time. The untrained network is drawn `drawings` times, by default three times for sounds
    and once for pictures; its row is the mean. Raises SourceError when the set is not there or,
    unless `partial`, not whole.
    """
    benchmark = open_benchmark(dataset, path, partial)
    rivals = RIVALS[benchmark.side] if compare is None else compare
    extractors = contenders(benchmark, model, rivals, layer, choose_device(device).value, drawings)
    run = probe_sounds if benchmark.side == "audio" else probe_images
    return run(benchmark, extractors, layer, Path(cache) if cache else None, progress)


def probe_sounds(
    benchmark: Benchmark,
    extractors: Sequence[Extractor],
    layer: str = "",
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> SetProbe:
    """The paper's protocol for sounds (section 4.1) with the vectors of each extractor.

    Sub-clips of a second, equally spaced; each dimension z-scored on the training folds; a
    one-vs-all linear SVM whose cost is chosen inside the training folds; a clip's scores are the
    means over its sub-clips. Descriptions of whole clips get a logistic regression instead.
    Textures, which are no layer of the paper's, are put together to one vector a clip first.
    """
    _, classes = np.unique(benchmark.labels, return_inverse=True)

    def measure(extractor: Extractor, progress: Progress) -> tuple[ProbeRow, dict[int, str]]:
        store = sound_vectors(benchmark, extractor, cache, progress)
        classifier = LOGISTIC if extractor.whole else SVM
        vectors = clip_statistics(store.values) if extractor.summarized else store.values
        folds = Folds(
            vectors,
            classes,
            benchmark.folds,
            store.usable,
            benchmark.tested,
            classifier,
            extractor.device,
        )

        def fitting(done: int, total: int, /, **facts: str) -> None:
            progress(
                len(benchmark),
                len(benchmark),
                network=extractor.name,
                classifiers=f"{done}/{total}",
                **facts,
            )

        answers = folds.answers(fitting)
        right = (answers.said == classes[answers.items]).astype(np.float64)
        return _row(
            extractor,
            right,
            benchmark.folds[answers.items],
            tuple(f"C {cost:g}" for cost in answers.costs.values()),
        ), store.failed

    return _table(benchmark, extractors, layer, measure, progress)


def probe_images(
    benchmark: Benchmark,
    extractors: Sequence[Extractor],
    layer: str = "",
    cache: Path | None = None,
    progress: Progress = no_progress,
    epochs: int = EPOCHS,
    stream: bool | None = None,
) -> SetProbe:
    """The paper's protocol for pictures (section 4.2) with the vectors of each extractor.

    One linear layer, trained by cross-entropy and Adam on random crops and flips, measured on
    central crops. `stream`: keep no vector, look at every picture anew in every epoch; by default
    where the vectors of all would take over 4 GB.
    """
    _, classes = np.unique(benchmark.labels, return_inverse=True)

    def measure(extractor: Extractor, progress: Progress) -> tuple[ProbeRow, dict[int, str]]:
        def training(done: int, total: int, /, **facts: str) -> None:
            stage = (done, total) if streams else (len(benchmark), len(benchmark))
            progress(*stage, network=extractor.name, trained=f"{100 * done / total:.0f} %", **facts)

        streams = (
            len(benchmark) * (1 + VIEWS) * extractor.width * 4 > KEPT_BYTES
            if stream is None
            else stream
        )
        store = None if streams else picture_vectors(benchmark, extractor, cache, progress)
        numbers = torch.from_numpy(classes).to(extractor.device)
        pictures = Pictures(benchmark, extractor, numbers, store, store.failed if store else {})
        kept = (
            cache / benchmark.name / f"{extractor.key}-{benchmark.key()}-layers-{epochs}"
            if streams and cache and extractor.key
            else None
        )
        answers = picture_answers(pictures, epochs, kept, training)
        right = (answers.said == classes[answers.items]).astype(np.float64)
        return _row(
            extractor, right, benchmark.folds[answers.items], tuple(answers.chosen.values())
        ), pictures.failed

    return _table(benchmark, extractors, layer, measure, progress)


Measure = Callable[[Extractor, Progress], tuple[ProbeRow, dict[int, str]]]
"""(extractor, progress over the set's items) -> its row, and the items that could not be read, with
the reasons.
"""


def _table(
    benchmark: Benchmark,
    extractors: Sequence[Extractor],
    layer: str,
    measure: Measure,
    progress: Progress,
) -> SetProbe:
    rows: list[list[ProbeRow]] = []
    """The drawings of each network, in turn."""
    failed: dict[int, str] = {}

    def shifted(done: int, total: int, /, **facts: str) -> None:
        progress(sum(map(len, rows)) * total + done, len(extractors) * total, **facts)

    for extractor in extractors:
        row, unread = measure(extractor, shifted)
        if rows and extractor.drawing:
            rows[-1].append(row)
        else:
            rows.append([row])
        failed |= unread
    _, counts = np.unique(
        benchmark.labels[np.isin(benchmark.folds, benchmark.tested)], return_counts=True
    )
    return SetProbe(
        dataset=benchmark.title,
        layer=layer,
        items=len(benchmark),
        classes=len(benchmark.classes),
        tested_folds=benchmark.tested,
        chance=float(counts.max() / counts.sum()),
        failed=len(failed),
        failures=tuple(failed[item] for item in sorted(failed)[:FAILURES_TOLD]),
        rows=tuple(map(_mean_row, rows)),
        published=benchmark.published,
    )


def _mean_row(rows: list[ProbeRow]) -> ProbeRow:
    """One row of the drawings of one network."""
    if len(rows) == 1:
        return rows[0]
    folds = np.mean([row.folds for row in rows], axis=0)
    low, high = np.mean([row.ci95 for row in rows], axis=0).tolist()
    return replace(
        rows[0],
        accuracy=float(folds.mean()),
        deviation=float(folds.std(ddof=1)) if len(folds) > 1 else float("nan"),
        ci95=(low, high),
        folds=tuple(folds.tolist()),
        drawings=tuple(row.accuracy for row in rows),
    )


def _row(
    extractor: Extractor, right: NDArray[np.float64], folds: NDArray[Any], chosen: tuple[str, ...]
) -> ProbeRow:
    by_fold = np.array([right[folds == fold].mean() for fold in dict.fromkeys(folds.tolist())])
    # The figure is the mean over folds, so an item of a small fold weighs more.
    _, of_item, sizes = np.unique(folds, return_inverse=True, return_counts=True)
    return ProbeRow(
        name=extractor.name,
        accuracy=float(by_fold.mean()),
        deviation=float(by_fold.std(ddof=1)) if len(by_fold) > 1 else float("nan"),
        ci95=interval(right, weights=1 / sizes[of_item]),
        folds=tuple(by_fold.tolist()),
        features=extractor.width * (2 if extractor.summarized else 1),
        chosen=chosen,
    )
