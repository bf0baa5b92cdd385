"""Cross-validation over the folds of a set of sounds (paper, section 4.1).

Takes vectors from anywhere: it knows no network and no file. Nothing of a tested fold influences
what is fitted for it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from looklisten.evaluation.linear_probe.svm import COSTS, ZScore, svm_scores
from looklisten.system.progress import Progress, no_progress

INNER_GROUPS = 5
"""If there is only one training fold, its clips form this many groups to choose the cost."""

FitAndScore = Callable[[Tensor, Tensor, Tensor, Sequence[float], int], Iterable[Tensor]]
"""(examples, their classes, others, costs, number of classes) -> for each cost the scores of the
others `[others, classes]`."""


FoldNames = frozenset[str]

ItemMask = NDArray[np.bool_]
"""Which items are meant `[items]`."""


@dataclass(frozen=True, eq=False)
class FoldPredictions:
    """The predicted classes of all tested items."""

    items: Int[np.ndarray, " tested"]
    classes: Int[np.ndarray, " tested"]
    """The predicted class of each of `items`."""
    costs: dict[str, float]
    """For each tested fold, the cost that was chosen inside its training folds."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A linear classifier and the costs to choose from, ascending."""

    fit_and_score: FitAndScore
    costs: tuple[float, ...]


def logistic_scores(
    examples: Tensor, classes: Tensor, others: Tensor, costs: Sequence[float], n_classes: int
) -> Iterator[Tensor]:
    """Log-probabilities by logistic regression over all classes on z-scored examples.

    Classes without an example can never be predicted; where one class has all, it is certain.
    """
    scores = torch.full((len(others), n_classes), -torch.inf)
    with_examples = np.unique(classes.numpy())
    if len(with_examples) == 1:
        scores[:, int(with_examples[0])] = 0.0
        yield from [scores] * len(costs)
        return
    # Whole clips are few, so scikit-learn on the CPU is fast enough.
    scaling = ZScore.of(examples)
    fitted = ((examples - scaling.mean) / scaling.deviation).numpy()
    tested = ((others - scaling.mean) / scaling.deviation).numpy()
    for cost in costs:
        model = LogisticRegression(C=cost, max_iter=2000)
        model.fit(fitted, classes.numpy())
        logits = torch.from_numpy(model.decision_function(tested))
        if logits.ndim == 1:
            # Of two classes scikit-learn gives the logit of the second one alone.
            logits = torch.stack([torch.zeros_like(logits), logits], dim=1)
        # Not `predict_log_proba`: it gives -inf where a probability is too small for a float.
        log_probabilities = torch.log_softmax(logits, dim=1)
        of_cost = scores.clone()
        of_cost[:, model.classes_] = log_probabilities.float()
        yield of_cost


SVM = Classifier(svm_scores, COSTS)
LOGISTIC = Classifier(logistic_scores, (0.01, 0.1, 1.0, 10.0))


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The vectors of a set with the class and fold of each item, and the folds that are tested."""

    vectors: Float[np.ndarray, "items windows features"]
    classes: Int[np.ndarray, " items"]
    folds: NDArray[Any]
    usable: Bool[np.ndarray, " items"]
    """Which items could be read."""
    tested: tuple[str, ...]
    classifier: Classifier = SVM
    device: str = "cpu"

    def predictions(self, progress: Progress = no_progress) -> FoldPredictions:
        """Predict each tested fold by a fit on the others, at the cost that is best in those."""
        searches = {fold: self._cost_search(fold) for fold in self.tested}
        # Two tested folds share the fit that leaves out both of them, so it is made once.
        data_of_fit: dict[FoldNames, CrossValidation] = {}
        for search in searches.values():
            for left_out in search.fits:
                data_of_fit[left_out] = search.data
        n_fits = len(data_of_fit) + len(self.tested)
        n_correct = {}
        for left_out, data in data_of_fit.items():
            n_correct[left_out] = data._correct_by_cost(left_out)
            progress(len(n_correct), n_fits)

        items = []
        classes = []
        costs: dict[str, float] = {}
        for fold, search in searches.items():
            totals = np.zeros(len(self.classifier.costs), dtype=np.int64)
            for left_out in search.fits:
                of_fit = n_correct[left_out]
                for inner_fold in left_out - {fold}:
                    totals += of_fit[inner_fold]
            # Of equally good costs argmax takes the lowest, which is also the fastest.
            costs[fold] = self.classifier.costs[int(np.argmax(totals))]
            is_tested = self.usable & (self.folds == fold)
            is_fitted = self.usable & (self.folds != fold)
            (scores,) = self._clip_scores(is_fitted, is_tested, [costs[fold]])
            items.append(np.flatnonzero(is_tested))
            classes.append(scores.argmax(1))
            progress(len(n_correct) + len(costs), n_fits)
        return FoldPredictions(np.concatenate(items), np.concatenate(classes), costs)

    def _cost_search(self, fold: str) -> "_CostSearch":
        """How a cost is chosen for a tested fold.

        Each fit leaves out the tested fold and one other. If there is only one other fold, its
        clips form groups, and each fit leaves out one group.
        """
        is_fitted = self.folds != fold
        others = [str(other) for other in np.unique(self.folds[is_fitted])]
        if len(others) > 1:
            pairs = [FoldNames((fold, other)) for other in others]
            return _CostSearch(self, pairs)
        groups = np.full(len(self.folds), "", dtype=object)
        for class_index in np.unique(self.classes[is_fitted]):
            members = np.flatnonzero(is_fitted & (self.classes == class_index))
            # Groups by rank within a class have all classes in equal shares.
            for rank, item in enumerate(members):
                groups[item] = f"{others[0]}, group {rank % INNER_GROUPS}"
        # The tested fold is not usable here, so that no fit of the search can see it.
        usable = self.usable & is_fitted
        inner = replace(self, folds=groups.astype(str), usable=usable)
        names = np.unique(groups[is_fitted])
        return _CostSearch(inner, [FoldNames((str(name),)) for name in names])

    def _correct_by_cost(self, left_out: FoldNames) -> dict[str, Int[np.ndarray, " costs"]]:
        """For each fold left out: how many of its clips each cost classifies correctly."""
        is_tested = self.usable & np.isin(self.folds, list(left_out))
        is_fitted = self.usable & ~is_tested
        scores = self._clip_scores(is_fitted, is_tested, self.classifier.costs)
        predicted = np.stack(scores).argmax(2)
        is_correct = predicted == self.classes[is_tested]
        folds = self.folds[is_tested]
        n_correct = {}
        for fold in left_out:
            n_correct[fold] = is_correct[:, folds == fold].sum(1)
        return n_correct

    def _clip_scores(
        self, is_fitted: ItemMask, is_tested: ItemMask, costs: Sequence[float]
    ) -> list[NDArray[np.float32]]:
        """For each cost the scores `[clips, classes]` of the tested clips: means over windows."""
        n_windows = self.vectors.shape[1]
        n_classes = int(self.classes.max()) + 1
        # Each window is an example of its own with the class of its clip.
        classes = torch.from_numpy(self.classes[is_fitted]).repeat_interleave(n_windows)
        window_scores = self.classifier.fit_and_score(
            self._windows(is_fitted),
            classes.to(self.device),
            self._windows(is_tested),
            costs,
            n_classes,
        )
        clip_scores = []
        for scores in window_scores:
            by_clip = scores.reshape(-1, n_windows, scores.shape[1])
            clip_scores.append(by_clip.mean(1).cpu().numpy())
        return clip_scores

    def _windows(self, mask: ItemMask) -> Float[Tensor, "windows features"]:
        n_features = self.vectors.shape[2]
        windows = self.vectors[mask].reshape(-1, n_features)
        return torch.from_numpy(windows).to(self.device)


class _CostSearch(NamedTuple):
    data: CrossValidation
    fits: list[FoldNames]
    """The folds of `data` that each fit leaves out."""
