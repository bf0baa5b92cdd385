"""The protocol for pictures (paper, section 4.2): a linear layer on frozen vectors, trained on
random crops, tested on central ones.

Of small sets the vectors of a few random crops are kept; large ones are looked at anew every epoch,
and no vector is kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from looklisten.evaluation.linear_probe.features import Extractor
from looklisten.evaluation.linear_probe.images import VIEWS, streamed_vectors
from looklisten.evaluation.linear_probe.softmax import SETTINGS, Batch, Layers, train
from looklisten.evaluation.linear_probe.vector_cache import Store
from looklisten.evaluation.sets.folds import rank_within_class
from looklisten.evaluation.sets.labeled_set import LabeledFiles
from looklisten.system.progress import Progress, no_progress

EPOCHS = 30
BATCH = 128
KEPT_BYTES = 4e9
"""Sets whose vectors would take more than this are streamed."""
CHOOSING = 20
"""Where the owner made no validation split, one of so many training pictures is kept to choose the
setting by.
"""

Items = Int[np.ndarray, " _"]


@dataclass(frozen=True, eq=False)
class Pictures:
    """A set in the eyes of one extractor: its vectors in batches, kept or made on the way."""

    benchmark: LabeledFiles
    extractor: Extractor
    classes: Int[Tensor, " items"]
    store: Store | None
    """The kept vectors; None: they are streamed."""
    failed: dict[int, str]
    """Pictures that could not be read so far, and why."""
    seed: int = 0

    @property
    def batch_rows(self) -> int:
        return BATCH if self.store else self.extractor.batch_rows

    def training(self, items: Items, epoch: int) -> Iterator[Batch]:
        """One epoch: each of `items` once, in an order and by a random square that (seed, epoch)
        draw.
        """
        order = np.random.default_rng((self.seed, epoch)).permutation(items)
        for some, vectors in self._batches(order, epoch):
            yield vectors, self.classes[some]

    def _batches(self, items: Items, epoch: int | None) -> Iterator[tuple[list[int], Tensor]]:
        """Items and their vectors: of central squares without an epoch, else of the epoch's random
        ones.
        """
        for some, vectors in (
            self._kept(items, epoch) if self.store else self._streamed(items, epoch)
        ):
            yield some, torch.from_numpy(vectors).to(self.extractor.device)

    def _kept(
        self, items: Items, epoch: int | None
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        assert self.store is not None
        view = 0 if epoch is None else 1 + epoch % VIEWS
        readable = items[self.store.usable[items]]
        for start in range(0, len(readable), BATCH):
            some = readable[start : start + BATCH]
            yield some.tolist(), self.store.values[some, view]

    def _streamed(
        self, items: Items, epoch: int | None
    ) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        key = None if epoch is None else (self.seed, epoch)
        return streamed_vectors(self.benchmark, self.extractor, items.tolist(), key, self.failed)

    def said(self, layers: Layers, items: Items) -> tuple[Items, Int[np.ndarray, "settings _"]]:
        """The readable ones of `items`, and the class that each layer gives each of them."""
        readable: list[int] = []
        said = [np.zeros((len(layers.weights), 0), np.int64)]
        for some, vectors in self._batches(items, None):
            readable.extend(some)
            said.append(layers.scores(vectors).argmax(2).cpu().numpy())
        return np.array(readable, dtype=np.int64), np.concatenate(said, axis=1)


def parts(benchmark: LabeledFiles, fold: str) -> tuple[Items, Items, Items]:
    """What is trained on, what the setting is chosen by, and what is measured, when `fold` is.

    The owner's validation split chooses; where there is none, or it is itself measured, a twentieth
    of the training pictures does.
    """
    test, choose = benchmark.folds == fold, benchmark.folds == "val"
    if fold == "val" or not choose.any():
        rest = np.flatnonzero(~test)
        places = rank_within_class(
            [benchmark.paths[item] for item in rest], benchmark.labels[rest].tolist()
        )
        choose = np.isin(np.arange(len(test)), rest[places % CHOOSING == 0])
    return np.flatnonzero(~test & ~choose), np.flatnonzero(choose), np.flatnonzero(test)


@dataclass(frozen=True, eq=False)
class PictureAnswers:
    """What the layers said of the tested pictures that could be read."""

    items: Items
    said: Items
    chosen: dict[str, str]
    """The setting that was chosen for each tested fold."""


def picture_answers(
    pictures: Pictures,
    epochs: int = EPOCHS,
    kept: Path | None = None,
    progress: Progress = no_progress,
) -> PictureAnswers:
    """Each tested fold by layers trained on the others; of several settings the one counts that is
    best where settings are chosen.

    `kept`, a folder, is where layers of streamed sets stand after each epoch, so that an
    interrupted probe goes on.
    """
    items, said, chosen = [], [], {}
    count = int(pictures.classes.max()) + 1
    for fold in pictures.benchmark.tested:
        fit, choose, test = parts(pictures.benchmark, fold)
        layers = train(
            lambda epoch, fit=fit: pictures.training(fit, epoch),  # type: ignore[misc]
            steps=-(-len(fit) // pictures.batch_rows),
            epochs=epochs,
            classes=count,
            kept=kept / f"fold-{fold}.safetensors" if kept else None,
            progress=progress,
            device=pictures.extractor.device,
        )
        asked, answers = pictures.said(layers, choose)
        best = int((answers == pictures.classes.cpu().numpy()[asked]).sum(1).argmax())
        tested, answers = pictures.said(layers, test)
        chosen[fold] = str(SETTINGS[best])
        items.append(tested)
        said.append(answers[best])
    return PictureAnswers(np.concatenate(items), np.concatenate(said), chosen)
