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

from looklisten.evaluation.linear_probe.audio import clip_statistics, sound_vectors
from looklisten.evaluation.linear_probe.baselines import chosen_baselines, contenders
from looklisten.evaluation.linear_probe.crossvalidation import LOGISTIC, SVM, Folds
from looklisten.evaluation.linear_probe.features import Extractor
from looklisten.evaluation.linear_probe.image_protocol import (
    EPOCHS,
    KEPT_BYTES,
    Pictures,
    picture_answers,
)
from looklisten.evaluation.linear_probe.images import VIEWS, picture_vectors
from looklisten.evaluation.linear_probe.options import ProbeOptions
from looklisten.evaluation.sets.labeled_set import LabeledFiles, PublishedFigure
from looklisten.evaluation.sets.registry import open_labeled_set
from looklisten.evaluation.statistics import confidence_interval
from looklisten.inference.encoder import Encoder
from looklisten.model.l3net import L3Net
from looklisten.system.devices import choose_device
from looklisten.system.progress import Progress, no_progress

DEFAULT_OPTIONS = ProbeOptions()
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
    accuracy_by_seed: tuple[float, ...] = ()
    """Of an untrained network that was drawn several times the accuracy of each; the other figures
    are means over them, the confidence_interval's ends too, and what was chosen is the first one's.
    """


@dataclass(frozen=True)
class ProbeTable:
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
    published: tuple[PublishedFigure, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"published": [row._asdict() for row in self.published]}


def probe_labeled_set(
    name: str,
    path: str | Path,
    model: str | Path | L3Net | Encoder,
    options: ProbeOptions = DEFAULT_OPTIONS,
    progress: Progress = no_progress,
) -> ProbeTable:
    """What a linear classifier reads from frozen vectors of a labeled set, by the paper's protocol.

    name, path: the set, and the folder or table that it is in.
    model: the folder of a run, a network, or `untrained:RECIPE`.

    Vectors are kept in the folder `options.cache`; without one they are computed each time.
    Raises SourceError if the set is not at `path` or, unless `options.partial`, incomplete. Raises
    ConfigError for an unknown set, baseline or layer. (Paper, sections 4.1 and 4.2.)
    """
    files = open_labeled_set(name, path, options.partial)
    extractors = contenders(
        files,
        model,
        chosen_baselines(options.compare, files.side),
        options.layer,
        choose_device(options.device).value,
        options.untrained_seeds,
    )
    run = probe_sounds if files.side == "audio" else probe_images
    return run(files, extractors, options.layer, options.cache, progress)


def probe_sounds(
    benchmark: LabeledFiles,
    extractors: Sequence[Extractor],
    layer: str = "",
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> ProbeTable:
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
    benchmark: LabeledFiles,
    extractors: Sequence[Extractor],
    layer: str = "",
    cache: Path | None = None,
    progress: Progress = no_progress,
    epochs: int = EPOCHS,
    stream: bool | None = None,
) -> ProbeTable:
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
            cache
            / benchmark.labeled_set.name
            / f"{extractor.key}-{benchmark.fingerprint()}-layers-{epochs}"
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
    benchmark: LabeledFiles,
    extractors: Sequence[Extractor],
    layer: str,
    measure: Measure,
    progress: Progress,
) -> ProbeTable:
    rows: list[list[ProbeRow]] = []
    """The accuracy_by_seed of each network, in turn."""
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
    return ProbeTable(
        dataset=benchmark.labeled_set.title,
        layer=layer,
        items=len(benchmark),
        classes=len(benchmark.classes),
        tested_folds=benchmark.tested,
        chance=float(counts.max() / counts.sum()),
        failed=len(failed),
        failures=tuple(failed[item] for item in sorted(failed)[:FAILURES_TOLD]),
        rows=tuple(map(_mean_row, rows)),
        published=benchmark.labeled_set.published,
    )


def _mean_row(rows: list[ProbeRow]) -> ProbeRow:
    """One row of the accuracy_by_seed of one network."""
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
        accuracy_by_seed=tuple(row.accuracy for row in rows),
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
        ci95=confidence_interval(right, weights=1 / sizes[of_item]),
        folds=tuple(by_fold.tolist()),
        features=extractor.width * (2 if extractor.summarized else 1),
        chosen=chosen,
    )
