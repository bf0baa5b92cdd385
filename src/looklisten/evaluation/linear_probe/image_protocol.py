"""The protocol for images (paper, section 4.2): linear layers on frozen vectors.

They are trained on random crops and tested on central ones. Vectors of small sets are stored; those
of large sets are computed in every epoch.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from looklisten.evaluation.linear_probe.features import FeatureExtractor
from looklisten.evaluation.linear_probe.images import (
    RANDOM_VIEWS,
    VectorsOfItems,
    streamed_image_vectors,
)
from looklisten.evaluation.linear_probe.softmax import (
    SETTINGS,
    SoftmaxLayers,
    VectorBatch,
    train_softmax,
)
from looklisten.evaluation.linear_probe.vector_cache import VectorCache
from looklisten.evaluation.sets.folds import rank_within_class
from looklisten.evaluation.sets.labeled_set import LabeledFiles
from looklisten.system.progress import Progress, no_progress

PROBE_EPOCHS = 30
STORED_BATCH_ROWS = 128
MAX_STORED_BYTES = 4e9
"""Sets whose vectors would take more than this are streamed."""
VALIDATION_SHARE = 20
"""Without a split `val`, one of this many training images chooses the setting."""

Items = Int[np.ndarray, " _"]


@dataclass(frozen=True, eq=False)
class ProbeImages:
    """A set of images as vectors of one extractor, stored or streamed."""

    files: LabeledFiles
    extractor: FeatureExtractor
    classes: Int[Tensor, " items"]
    stored: VectorCache | None
    """The stored vectors; None if they are streamed."""
    failures: dict[int, str]
    """The reason for each image that could not be read so far."""
    seed: int = 0

    @property
    def batch_rows(self) -> int:
        """How many vectors a batch has."""
        return STORED_BATCH_ROWS if self.stored else self.extractor.batch_rows

    def training_batches(self, items: Items, epoch: int) -> Iterator[VectorBatch]:
        """One epoch: each of `items` once, in a random order and by a random square."""
        # A resumed training draws the same order, because only seed and epoch choose it.
        order = np.random.default_rng((self.seed, epoch)).permutation(items)
        for batch_items, vectors in self.batches(order, epoch):
            yield vectors, self.classes[batch_items]

    def batches(self, items: Items, epoch: int | None) -> Iterator[tuple[list[int], Tensor]]:
        """Items and their vectors: of central squares for None, else of an epoch's random ones."""
        source = self._stored if self.stored else self._streamed
        for batch_items, vectors in source(items, epoch):
            yield batch_items, torch.from_numpy(vectors).to(self.extractor.device)

    def _stored(self, items: Items, epoch: int | None) -> Iterator[VectorsOfItems]:
        assert self.stored is not None
        # View 0 is the central square.
        view = 0 if epoch is None else 1 + epoch % RANDOM_VIEWS
        readable = items[self.stored.usable[items]]
        for start in range(0, len(readable), STORED_BATCH_ROWS):
            batch_items = readable[start : start + STORED_BATCH_ROWS]
            yield batch_items.tolist(), self.stored.vectors[batch_items, view]

    def _streamed(self, items: Items, epoch: int | None) -> Iterator[VectorsOfItems]:
        key = None if epoch is None else (self.seed, epoch)
        return streamed_image_vectors(
            self.files, self.extractor, items.tolist(), key, self.failures
        )

    @torch.no_grad()
    def predicted_classes(
        self, layers: SoftmaxLayers, items: Items
    ) -> tuple[Items, Int[np.ndarray, "settings _"]]:
        """The readable ones of `items`, and the class that each layer predicts for each."""
        readable: list[int] = []
        # The empty batch keeps the shapes if no item is readable.
        classes = [np.zeros((len(layers.layers), 0), np.int64)]
        for batch_items, vectors in self.batches(items, None):
            readable.extend(batch_items)
            predicted = layers(vectors).argmax(2)
            classes.append(predicted.cpu().numpy())
        return np.array(readable, dtype=np.int64), np.concatenate(classes, axis=1)


class ItemSplit(NamedTuple):
    """What the items of a set are used for while one fold is tested."""

    fitted: Items
    validation: Items
    """They choose the setting."""
    tested: Items


def split_items(files: LabeledFiles, fold: str) -> ItemSplit:
    """The use of each item while `fold` is tested.

    The owner's split `val` chooses the setting. If there is none, or if it is the tested one, a
    twentieth of the training images does.
    """
    is_tested = files.folds == fold
    is_validation = files.folds == "val"
    if fold == "val" or not is_validation.any():
        others = np.flatnonzero(~is_tested)
        paths = [files.paths[item] for item in others]
        # By rank within the class, so that each class is in the validation images.
        ranks = rank_within_class(paths, files.labels[others].tolist())
        chosen = others[ranks % VALIDATION_SHARE == 0]
        is_validation = np.isin(np.arange(len(is_tested)), chosen)
    return ItemSplit(
        fitted=np.flatnonzero(~is_tested & ~is_validation),
        validation=np.flatnonzero(is_validation),
        tested=np.flatnonzero(is_tested),
    )


@dataclass(frozen=True, eq=False)
class ImagePredictions:
    """The predicted classes of the tested images that could be read."""

    items: Items
    classes: Items
    chosen: dict[str, str]
    """The setting that was chosen for each tested fold."""


def predict_images(
    images: ProbeImages,
    epochs: int = PROBE_EPOCHS,
    state_folder: Path | None = None,
    progress: Progress = no_progress,
) -> ImagePredictions:
    """Predict each tested fold by layers trained on the others.

    Of several settings, the one is used that is best on the validation images.

    `state_folder`: the layers are saved there after each epoch; an interrupted probe resumes.
    """
    truth = images.classes.cpu().numpy()
    items = []
    classes = []
    chosen = {}
    for fold in images.files.tested:
        split = split_items(images.files, fold)

        def batches(epoch: int, fitted: Items = split.fitted) -> Iterator[VectorBatch]:
            return images.training_batches(fitted, epoch)

        layers = train_softmax(
            batches,
            steps=math.ceil(len(split.fitted) / images.batch_rows),
            epochs=epochs,
            n_classes=int(truth.max()) + 1,
            state_file=state_folder / f"fold-{fold}.safetensors" if state_folder else None,
            progress=progress,
        )
        validation, by_setting = images.predicted_classes(layers, split.validation)
        n_correct = (by_setting == truth[validation]).sum(1)
        best = int(n_correct.argmax())
        tested, by_setting = images.predicted_classes(layers, split.tested)
        chosen[fold] = str(SETTINGS[best])
        items.append(tested)
        classes.append(by_setting[best])
    return ImagePredictions(np.concatenate(items), np.concatenate(classes), chosen)
