"""A few examples of own classes -> a linear layer, its figures, and tags in the whole index.

The towers stay as they are. Knows files, vectors and labels.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from looklisten.data.inputs import find_sources
from looklisten.errors import ConfigError, OptionError, SourceError
from looklisten.evaluation.statistics import confidence_interval
from looklisten.media.formats import MEDIA_SUFFIXES
from looklisten.model.networks import Run
from looklisten.names import encode_name, printable
from looklisten.search.filters import text_literal
from looklisten.search.finding.searching import Index, open_index
from looklisten.search.index_file import IndexFile
from looklisten.search.indexing.moment_encoder import MomentEncoder
from looklisten.search.indexing.own_classes import (
    NONE_OF_THESE,
    OwnClasses,
    moment_features,
    read_own_classes,
    remove_own_classes,
    with_own_tags,
)
from looklisten.search.indexing.source_reader import read_source
from looklisten.search.moments import IndexedMoment
from looklisten.search.opening import open_store
from looklisten.search.store import VectorStore
from looklisten.system.folders import is_left_out
from looklisten.system.progress import Progress, no_progress

LEAST_FILES = 2
"""Of each class: one to learn from, one to measure."""
MOST_FOLDS = 5
MOST_OTHERS = 500
"""So many moments of the index stand for "none of these"."""
INVERSE_PENALTY = 10.0
SOURCES_AT_ONCE = 64
EXAMPLE_SECONDS = 1.0
FEW_RECOGNIZED = 0.5
"""A class of whose examples a smaller share is recognized is warned of."""
HEAD_NAME = re.compile(r"[\w-]+", re.ASCII)

_log = logging.getLogger("looklisten")


@dataclass(frozen=True)
class TagResult:
    """What `tag` learned, and what it tagged."""

    name: str
    classes: list[dict[str, Any]]
    """For each class its files, its examples, how many of them were recognized, and how many
    moments of the index have its tag."""
    accuracy: float
    """The mean over the classes, in folds that keep the seconds of a file together."""
    accuracy_ci95: tuple[float, float]
    chance: float
    moments: int
    """Moments of the index."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Examples:
    features: NDArray[np.float32]
    classes: NDArray[np.int64]
    files: NDArray[np.int64]
    """The file of each example; moments of one file are in one fold."""
    from_index: NDArray[np.bool_]
    """Whether it is a moment of the index, which only probably is none of the classes."""

    def select(self, rows: NDArray[Any]) -> "_Examples":
        return _Examples(
            self.features[rows], self.classes[rows], self.files[rows], self.from_index[rows]
        )


def tag_index(
    db: str | Path,
    examples: str | Path,
    name: str = "own",
    network: Run | str | Path | None = None,
    device: str = "auto",
    progress: Progress = no_progress,
) -> TagResult:
    """Learn classes from a few files each, and tag the moments of an index with them.

    `examples`: a folder with a folder for each class, which holds sounds, images or videos. The
    moments of the index stand for "none of these"; files in a folder of that name do too. `name` is
    that of the set of classes: several are side by side, and one of the same name is replaced.
    `network`: the one that made the index, where it is not found.

    Raises ConfigError for a class of fewer than two files.
    """
    _check_set_name(name)
    files = _files_of_classes(Path(examples))
    with open_index(db, network, device) as index:
        encoder = index.encoder
        classes = _class_list(files)
        _check_names(index, classes[:-1], name)
        rows = _encoded(files, classes, encoder, progress)
        _check_examples(rows, files, classes)
        return _learn(index, rows, classes, name)


def tag_index_by_moments(
    db: str | Path,
    examples: Mapping[str, Sequence[IndexedMoment]],
    name: str = "own",
    network: Run | str | Path | None = None,
) -> TagResult:
    """The same with moments of the index as examples, such as hits that a user marked.

    `examples`: the moments of each class. No file is opened. Raises ConfigError for a class of
    fewer than two moments.
    """
    _check_set_name(name)
    with open_index(db, network) as index:
        classes = _class_list(examples)
        if not classes[:-1]:
            raise ConfigError("there is no class: give the moments of at least one")
        _check_names(index, classes[:-1], name)
        rows = _of_moments(examples, classes, index.encoder.width)
        return _learn(index, rows, classes, name)


def _check_set_name(name: str) -> None:
    if not HEAD_NAME.fullmatch(name):
        raise OptionError(f"name {printable(name)!r} must be letters, digits, - and _", "name")


def _class_list(names: Iterable[str]) -> list[str]:
    """The classes in the order of their names; NONE_OF_THESE is the last."""
    return [*sorted(set(names) - {NONE_OF_THESE}), NONE_OF_THESE]


def _of_moments(
    examples: Mapping[str, Sequence[IndexedMoment]], classes: list[str], width: int
) -> _Examples:
    moments = []
    labels = []
    for class_name, of_class in examples.items():
        usable = [moment for moment in of_class if moment.vision is not None or _has_sound(moment)]
        if len(usable) < LEAST_FILES:
            raise ConfigError(
                f"the class {printable(class_name)} has {len(usable)} moments that are neither "
                f"black nor silent; give at least {LEAST_FILES}, better ten"
            )
        moments += usable
        labels += [classes.index(class_name)] * len(usable)
    return _Examples(
        moment_features(moments, width),
        np.array(labels, np.int64),
        _groups(moments, labels),
        np.zeros(len(labels), bool),
    )


def _has_sound(moment: IndexedMoment) -> bool:
    return moment.audio is not None


def _groups(moments: Sequence[IndexedMoment], labels: Sequence[int]) -> NDArray[np.int64]:
    """The source of each example, so that moments of one source are in one fold.

    Each moment is a group of its own where a class has moments of one source alone.
    """
    pairs = {(label, moment.source) for label, moment in zip(labels, moments, strict=True)}
    fewest = min(sum(label == other for other, _ in pairs) for label in set(labels))
    if fewest < LEAST_FILES:
        return np.arange(len(moments), dtype=np.int64)
    sources = sorted({moment.source for moment in moments})
    return np.array([sources.index(moment.source) for moment in moments], np.int64)


def _learn(index: Index, rows: _Examples, classes: list[str], name: str) -> TagResult:
    """Fit the layer, save it, and tag the index with it."""
    with_others = _with_others(rows, classes, index.path, index.encoder.width)
    layer = _fit(with_others, classes, name)
    with open_store(index.path, create=True) as store:
        before = read_own_classes(index.path).get(name)
        # After a kill the next run still has to know which tags go.
        replaced = (*before.classes, *before.replaced) if before else ()
        replace(layer, replaced=replaced).save(index.path)
        counts = _apply(store, list(read_own_classes(index.path).values()))
        layer.save(index.path)
        moments = store.stats().moments
    lines = []
    for line in layer.figures["classes"]:
        lines.append(line | {"tagged_moments": counts.get(line["class"], 0)})
    low, high = layer.figures["accuracy_ci95"]
    return TagResult(name, lines, layer.figures["accuracy"], (low, high), 1 / len(classes), moments)


def own_class_figures(db: str | Path) -> list[dict[str, Any]]:
    """The sets of own classes of an index, with what was measured of them."""
    IndexFile.read(Path(db))
    lines = []
    for layer in read_own_classes(Path(db)).values():
        names = ", ".join(layer.classes[:-1])
        accuracy = layer.figures["accuracy"]
        lines.append({"name": layer.name, "classes": names, "accuracy": accuracy})
    return lines


def remove_tags(db: str | Path, name: str) -> int:
    """Remove a set of own classes and its tags; returns how many moments lost a tag."""
    db = Path(db)
    IndexFile.read(db)
    layers = read_own_classes(db)
    if name not in layers:
        known = f"its sets are {', '.join(layers)}" if layers else "it has none"
        raise OptionError(
            f"remove {printable(name)!r} is no set of own classes of this index; {known}", "remove"
        )
    layer = layers.pop(name)
    removed = (*layer.classes, *layer.replaced)
    with open_store(db, create=True) as store:
        tagged = sum(1 for moment in store.moments() if any(tag in moment.tags for tag in removed))
        _apply(store, list(layers.values()), removed)
        # Last, because after a kill a set without its file could not be removed again.
        remove_own_classes(db, name)
    return tagged


def _files_of_classes(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise SourceError(f"there is no folder {printable(folder)}; it has a folder for each class")
    files: dict[str, list[Path]] = {}
    for class_folder in sorted(folder.iterdir()):
        if is_left_out(class_folder.name) or not class_folder.is_dir():
            continue
        listed = find_sources([str(class_folder)], suffixes=MEDIA_SUFFIXES)
        paths = [source.local_path(listed.root) for source in listed.sources]
        if len(paths) < LEAST_FILES:
            raise ConfigError(
                f"the class {printable(class_folder.name)} has {len(paths)} files; "
                f"give at least {LEAST_FILES}, better ten"
            )
        files[encode_name(class_folder.name)] = paths
    if not set(files) - {NONE_OF_THESE}:
        raise ConfigError(f"{printable(folder)} has no folder of a class: EXAMPLES/CLASS/files")
    return files


def _check_names(index: Index, classes: Sequence[str], name: str) -> None:
    """See that no class has the name of another one. Raises ConfigError."""
    taken = set(index.published_classes())
    for other in read_own_classes(index.path).values():
        if other.name != name:
            taken |= set(other.classes[:-1])
    both = sorted(taken & set(classes))
    if both:
        raise ConfigError(f"the index has a class {both[0]} already; rename the folder")


def _encoded(
    files: dict[str, list[Path]], classes: list[str], encoder: MomentEncoder, progress: Progress
) -> _Examples:
    features, labels, numbers = [], [], []
    total = sum(map(len, files.values()))
    number = 0
    for class_name, paths in files.items():
        for path in paths:
            number += 1
            progress(number, total)
            try:
                content = read_source(path, encoder, EXAMPLE_SECONDS)
            except SourceError as error:
                _log.warning("left out an example that cannot be read: %s", error)
                continue
            moments = [
                IndexedMoment(
                    moment_id="",
                    source=str(path),
                    source_digest="",
                    video_id="",
                    seconds=moment.seconds,
                    vision=moment.frame.vector if moment.frame else None,
                    audio=moment.sound.vector if moment.sound else None,
                )
                for moment in content.moments
                if moment.frame or moment.sound
            ]
            if not moments:
                _log.warning(
                    "%s holds only silence, noise or hum, so it is no example", printable(path)
                )
            rows = moment_features(moments, encoder.width)
            features.append(rows)
            labels += [classes.index(class_name)] * len(rows)
            numbers += [number] * len(rows)
    from_index = np.zeros(len(labels), bool)
    return _Examples(
        np.concatenate(features or [moment_features([], encoder.width)]),
        np.array(labels, np.int64),
        np.array(numbers, np.int64),
        from_index,
    )


def _check_examples(rows: _Examples, files: dict[str, list[Path]], classes: Sequence[str]) -> None:
    """See that enough files of each class can be learned from. Raises ConfigError."""
    for class_name in files:
        own = rows.classes == classes.index(class_name)
        usable = len(set(rows.files[own].tolist()))
        if usable < LEAST_FILES:
            raise ConfigError(
                f"the class {printable(class_name)} has {usable} files that are neither broken nor "
                f"silent; give at least {LEAST_FILES}, better ten"
            )


def _with_others(rows: _Examples, classes: list[str], db: Path, width: int) -> _Examples:
    """The examples and some moments of the index, which stand for "none of these"."""
    with open_store(db) as store:
        sources = sorted(store.sources().items(), key=lambda item: item[1])
        per_source = max(MOST_OTHERS // max(len(sources), 1), 1)
        others: list[IndexedMoment] = []
        for source, _ in sources[:MOST_OTHERS]:
            moments = sorted(
                store.moments(f"source = {text_literal(source)}"), key=lambda each: each.seconds
            )
            step = max(len(moments) // per_source, 1)
            others += moments[::step][:per_source]
    known = np.concatenate([rows.features, moment_features(others, width)])
    labels = np.concatenate([rows.classes, np.full(len(others), len(classes) - 1)])
    first_number = int(rows.files.max(initial=0)) + 1
    names = [moment.source for moment in others]
    codes = np.unique(np.array(names), return_inverse=True)[1] if names else np.zeros(0, int)
    files = np.concatenate([rows.files, first_number + codes])
    from_index = np.concatenate([rows.from_index, np.ones(len(others), bool)])
    return _Examples(known, labels, files, from_index)


def _fit(rows: _Examples, classes: list[str], name: str) -> OwnClasses:
    """The layer on all examples, with its figures from folds."""
    fewest = min(len(set(rows.files[rows.classes == number])) for number in set(rows.classes))
    folds = StratifiedGroupKFold(max(min(fewest, MOST_FOLDS), 2), shuffle=True, random_state=0)
    answers = np.full(len(rows.classes), -1)
    for train, test in folds.split(rows.features, rows.classes, rows.files):
        model = _fitted(rows.select(train))
        answers[test] = model.predict(rows.features[test])
    is_right = (answers == rows.classes).astype(np.float64)
    lines: list[dict[str, Any]] = []
    weights = np.zeros(len(is_right))
    for number, class_name in enumerate(classes):
        own = rows.classes == number
        if not own.any():
            continue
        weights[own] = 1 / own.sum()
        recognized = float(is_right[own].mean())
        lines.append(
            {
                "class": class_name,
                "files": len(set(rows.files[own])),
                "examples": int(own.sum()),
                "recognized": round(recognized, 4),
            }
        )
        # Moments that look like a class are what the user looks for, and no class has their tags.
        if recognized < FEW_RECOGNIZED and class_name != NONE_OF_THESE:
            _log.warning(
                "of the examples of %s, %.0f %% were recognized when others taught the class; "
                "its tags will often be wrong, so give it more examples",
                printable(class_name),
                100 * recognized,
            )
    interval = confidence_interval(is_right, [rows.files], weights)
    accuracy = float(is_right @ weights / weights.sum())
    model = _fitted(rows)
    weight, bias = _of_all_classes(model, len(classes))
    figures = {
        "accuracy": round(accuracy, 4),
        "accuracy_ci95": [round(end, 4) for end in interval],
        "classes": lines,
    }
    return OwnClasses(name, tuple(classes), weight, bias, figures)


def _fitted(rows: _Examples) -> LogisticRegression:
    """A regression that leaves out moments of the index that look like one of the classes.

    Those are what the user looks for, and would teach the opposite.
    """
    first = _regression().fit(rows.features, rows.classes)
    is_like_a_class = first.predict(rows.features) != rows.classes.max()
    kept_rows = rows.select(~(rows.from_index & is_like_a_class))
    if len(set(kept_rows.classes.tolist())) < len(set(rows.classes.tolist())):
        # All moments of the index look like a class; then some of them must be none.
        return first
    return _regression().fit(kept_rows.features, kept_rows.classes)


def _regression() -> LogisticRegression:
    return LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=1000)


def _of_all_classes(
    model: LogisticRegression, count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """One row for each class; scikit-learn gives one row for two classes."""
    weight, bias = model.coef_, model.intercept_
    if count == 2:
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    return weight.astype(np.float32), bias.astype(np.float32)


def _apply(
    store: VectorStore, layers: Sequence[OwnClasses], removed: Sequence[str] = ()
) -> dict[str, int]:
    """Tag all moments of the index anew; returns how many have each class."""
    counts: dict[str, int] = {}
    for batch in _batches(sorted(store.sources())):
        where = f"source IN ({', '.join(map(text_literal, batch))})"
        before = list(store.moments(where))
        after = with_own_tags(before, layers, store.width, removed)
        if any(dict(a.tags) != dict(b.tags) for a, b in zip(after, before, strict=True)):
            store.add(after)
        for moment in after:
            for layer in layers:
                for class_name in set(layer.classes) & set(moment.tags):
                    counts[class_name] = counts.get(class_name, 0) + 1
    store.maintain()
    return counts


def _batches(names: list[str]) -> Iterator[list[str]]:
    for first in range(0, len(names), SOURCES_AT_ONCE):
        yield names[first : first + SOURCES_AT_ONCE]
