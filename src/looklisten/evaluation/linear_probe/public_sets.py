"""Linear probes of labeled sets: a table of one network, its baselines and published figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from looklisten.evaluation.linear_probe.audio import audio_vectors, clip_statistics
from looklisten.evaluation.linear_probe.baselines import (
    ProbedModel,
    compared_extractors,
    probed_layer,
    run_of,
)
from looklisten.evaluation.linear_probe.crossvalidation import LOGISTIC, SVM, CrossValidation
from looklisten.evaluation.linear_probe.features import FeatureExtractor
from looklisten.evaluation.linear_probe.image_protocol import (
    MAX_STORED_BYTES,
    PROBE_EPOCHS,
    ProbeImages,
    predict_images,
)
from looklisten.evaluation.linear_probe.images import RANDOM_VIEWS, image_vectors
from looklisten.evaluation.linear_probe.options import ProbeOptions
from looklisten.evaluation.sets.labeled_set import LabeledFiles, PublishedFigure
from looklisten.evaluation.sets.registry import open_labeled_set
from looklisten.evaluation.statistics import confidence_interval
from looklisten.system.devices import choose_device
from looklisten.system.progress import Progress, no_progress

DEFAULT_OPTIONS = ProbeOptions()
REPORTED_FAILURES = 5


@dataclass(frozen=True)
class ProbeRow:
    """How well a linear classifier on one network's vectors classifies the tested items."""

    name: str
    accuracy: float
    """The mean over the tested folds."""
    deviation: float
    """The standard deviation over the tested folds; NaN if there is one fold."""
    ci95: tuple[float, float]
    """Over items."""
    folds: tuple[float, ...]
    """The accuracy of each tested fold."""
    features: int
    """The number of features of a vector."""
    chosen: tuple[str, ...]
    """For each tested fold, the setting that was chosen without it: the cost of the classifier, or
    how the layer was trained."""
    accuracy_by_seed: tuple[float, ...] = ()
    """The accuracy of each of several untrained networks. The other figures are means over them,
    the ends of the interval too; `chosen` is that of the first."""


RowAndFailures = tuple[ProbeRow, dict[int, str]]
"""The row of one extractor, and the reason for each item that could not be read."""

Measure = Callable[[FeatureExtractor, Progress], RowAndFailures]
"""(extractor, progress over the items) -> its row and failures."""


@dataclass(frozen=True)
class ProbeTable:
    """The network, its baselines, and what others reported on the same set."""

    dataset: str
    layer: str
    items: int
    classes: int
    tested_folds: tuple[str, ...]
    chance: float
    """The share of the most frequent class among the tested items."""
    failed: int
    """How many items could not be read; no figure includes them."""
    failures: tuple[str, ...]
    """The reasons for the first of them."""
    rows: tuple[ProbeRow, ...]
    published: tuple[PublishedFigure, ...]

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self) | {"published": [row._asdict() for row in self.published]}


def probe_labeled_set(
    name: str,
    path: str | Path,
    model: ProbedModel,
    options: ProbeOptions = DEFAULT_OPTIONS,
    progress: Progress = no_progress,
) -> ProbeTable:
    """What a linear classifier reads from frozen vectors of a labeled set, by the paper's protocol.

    `name`, `path`: the set, and the folder or table that it is in.
    `model`: a network, or a name that `looklisten.open` takes, such as the folder of a run.

    Vectors are stored in the folder `options.cache`; without one they are computed each time.
    Raises SourceError if the set is not at `path` or, unless `options.partial`, incomplete. Raises
    ConfigError for an unknown set, baseline or layer. (Paper, sections 4.1 and 4.2.)
    """
    files = open_labeled_set(name, path, options.partial)
    run = run_of(model, choose_device(options.device).value)
    layer = probed_layer(run, files.side, options.layer)
    extractors = compared_extractors(run, files, options)
    probe_side = probe_audio if files.side == "audio" else probe_images
    cache = Path(options.cache) if options.cache else None
    return probe_side(files, extractors, layer, cache, progress)


def probe_audio(
    files: LabeledFiles,
    extractors: Sequence[FeatureExtractor],
    layer: str = "",
    cache: Path | None = None,
    progress: Progress = no_progress,
) -> ProbeTable:
    """The paper's protocol for sounds (section 4.1) with the vectors of each extractor.

    Windows of one second are equally spaced in each sound. Each feature is z-scored on the training
    folds. A one-vs-all linear SVM classifies windows; its cost is chosen inside the training folds.
    The scores of a clip are the means over its windows.

    Descriptions of whole clips get a logistic regression instead. Vectors of textures, which is not
    a layer of the paper's, are summarized to one vector for each clip first.

    `layer`: the name that the table reports.
    """
    _, classes = np.unique(files.labels, return_inverse=True)

    def measure(extractor: FeatureExtractor, progress: Progress) -> RowAndFailures:
        cached = audio_vectors(files, extractor, cache, progress)
        summarize = extractor.summarizes_clips
        vectors = clip_statistics(cached.vectors) if summarize else cached.vectors
        data = CrossValidation(
            vectors=vectors,
            classes=classes,
            folds=files.folds,
            usable=cached.usable,
            tested=files.tested,
            # The paper's SVM is for windows; a description of a whole clip is another method.
            classifier=LOGISTIC if extractor.whole_clips else SVM,
            device=extractor.device,
        )

        def fit_progress(done: int, total: int, /, **facts: str) -> None:
            fits = f"{done}/{total}"
            n_items = len(files)
            progress(n_items, n_items, network=extractor.name, classifiers=fits, **facts)

        predictions = data.predictions(fit_progress)
        is_correct = predictions.classes == classes[predictions.items]
        chosen = tuple(f"C {cost:g}" for cost in predictions.costs.values())
        row = _row(extractor, is_correct, files.folds[predictions.items], chosen)
        return row, cached.failures

    return _table(files, extractors, layer, measure, progress)


def probe_images(
    files: LabeledFiles,
    extractors: Sequence[FeatureExtractor],
    layer: str = "",
    cache: Path | None = None,
    progress: Progress = no_progress,
    epochs: int = PROBE_EPOCHS,
    stream: bool | None = None,
) -> ProbeTable:
    """The paper's protocol for images (section 4.2) with the vectors of each extractor.

    One linear layer is trained by cross-entropy and Adam on random crops and flips, and tested on
    central crops.

    `layer`: the name that the table reports.
    `stream`: read every image again in every epoch and store no vector; by default only if the
        vectors of all images would take over 4 GB.
    """
    _, classes = np.unique(files.labels, return_inverse=True)

    def measure(extractor: FeatureExtractor, progress: Progress) -> RowAndFailures:
        stored_bytes = len(files) * (1 + RANDOM_VIEWS) * extractor.width * 4
        streams = stored_bytes > MAX_STORED_BYTES if stream is None else stream

        def training_progress(done: int, total: int, /, **facts: str) -> None:
            trained = f"{100 * done / total:.0f} %"
            # Stored vectors are complete before training, streamed ones are read by it.
            units = (done, total) if streams else (len(files), len(files))
            progress(*units, network=extractor.name, trained=trained, **facts)

        stored = None if streams else image_vectors(files, extractor, cache, progress)
        images = ProbeImages(
            files=files,
            extractor=extractor,
            classes=torch.from_numpy(classes).to(extractor.device),
            stored=stored,
            failures=stored.failures if stored else {},
        )
        state_folder = None
        if streams and cache and extractor.key:
            # Only streamed training takes long enough to be worth a state on disk.
            state_name = f"{extractor.key}-{files.fingerprint()}-layers-{epochs}"
            state_folder = cache / files.labeled_set.name / state_name
        predictions = predict_images(images, epochs, state_folder, training_progress)
        is_correct = predictions.classes == classes[predictions.items]
        chosen = tuple(predictions.chosen.values())
        row = _row(extractor, is_correct, files.folds[predictions.items], chosen)
        return row, images.failures

    return _table(files, extractors, layer, measure, progress)


def _table(
    files: LabeledFiles,
    extractors: Sequence[FeatureExtractor],
    layer: str,
    measure: Measure,
    progress: Progress,
) -> ProbeTable:
    rows_of_networks: list[list[ProbeRow]] = []
    failures: dict[int, str] = {}
    for number, extractor in enumerate(extractors):
        row, unreadable = measure(extractor, _part(progress, number, len(extractors)))
        failures |= unreadable
        # Further seeds of the untrained network follow its first one.
        if extractor.repetition == 0:
            rows_of_networks.append([])
        rows_of_networks[-1].append(row)
    # Chance is that of the tested items; other folds may have other shares.
    tested_labels = files.labels[np.isin(files.folds, files.tested)]
    _, class_sizes = np.unique(tested_labels, return_counts=True)
    return ProbeTable(
        dataset=files.labeled_set.title,
        layer=layer,
        items=len(files),
        classes=len(files.classes),
        tested_folds=files.tested,
        chance=float(class_sizes.max() / class_sizes.sum()),
        failed=len(failures),
        failures=tuple(failures[item] for item in sorted(failures)[:REPORTED_FAILURES]),
        rows=tuple(map(_mean_row, rows_of_networks)),
        published=files.labeled_set.published,
    )


def _part(progress: Progress, number: int, n_parts: int) -> Progress:
    """The progress of one of several parts of equal length."""

    def part_progress(done: int, total: int, /, **facts: str) -> None:
        progress(number * total + done, n_parts * total, **facts)

    return part_progress


def _mean_row(rows: Sequence[ProbeRow]) -> ProbeRow:
    """One row for the untrained networks of several seeds."""
    if len(rows) == 1:
        return rows[0]
    folds = np.mean([row.folds for row in rows], axis=0)
    low, high = np.mean([row.ci95 for row in rows], axis=0).tolist()
    return replace(
        rows[0],
        accuracy=float(folds.mean()),
        deviation=_deviation(folds),
        ci95=(low, high),
        folds=tuple(folds.tolist()),
        accuracy_by_seed=tuple(row.accuracy for row in rows),
    )


def _row(
    extractor: FeatureExtractor,
    is_correct: NDArray[np.bool_],
    folds: NDArray[Any],
    chosen: tuple[str, ...],
) -> ProbeRow:
    """The row of one network; `is_correct` and `folds` are over the tested items."""
    # Folds keep the order in which they were tested.
    accuracies = []
    for fold in dict.fromkeys(folds.tolist()):
        accuracies.append(is_correct[folds == fold].mean())
    by_fold = np.array(accuracies)
    # The accuracy is the mean over folds, so that an item of a small fold weighs more.
    _, fold_indices, fold_sizes = np.unique(folds, return_inverse=True, return_counts=True)
    weights = 1 / fold_sizes[fold_indices]
    return ProbeRow(
        name=extractor.name,
        accuracy=float(by_fold.mean()),
        deviation=_deviation(by_fold),
        ci95=confidence_interval(is_correct.astype(np.float64), weights=weights),
        folds=tuple(by_fold.tolist()),
        features=extractor.width * (2 if extractor.summarizes_clips else 1),
        chosen=chosen,
    )


def _deviation(folds: NDArray[np.float64]) -> float:
    if len(folds) == 1:
        return math.nan
    return float(folds.std(ddof=1))
