"""The protocol for sounds (paper, section 4.1): folds, what is fitted on which, and a clip's answer
from its sub-clips.

Takes vectors, from whatever made them: it knows no network and no file. Nothing of a tested fold
touches what is fitted.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from looklisten.evaluation.linear_probe.svm import COSTS, svm_scores
from looklisten.system.progress import Progress, no_progress

INNER_GROUPS = 5
"""Where one training fold is all there is, its clips are dealt into so many groups to choose the
cost.
"""

Scores = Callable[[Tensor, Tensor, Tensor, Sequence[float], int], Iterable[Tensor]]
"""(examples, their classes, others, costs, number of classes) -> for each cost the decision values
of the others.
"""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a classifier said of the tested clips."""

    items: Int[np.ndarray, " tested"]
    """Their places in the set ..."""
    said: Int[np.ndarray, " tested"]
    """... and the class each was given."""
    costs: dict[str, float]
    """The cost that was chosen inside the training folds of each tested fold."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A linear classifier and the costs to choose from, ascending."""

    scores: Scores
    costs: tuple[float, ...]


def logistic_scores(
    examples: Tensor, classes: Tensor, others: Tensor, costs: Sequence[float], count: int
) -> Iterator[Tensor]:
    """Logistic regression over all classes at once on z-scored examples."""
    deviation, mean = torch.std_mean(examples, dim=0, correction=0)
    scaling = torch.where(deviation > 0, deviation, 1.0)
    fitted, measured = ((some - mean) / scaling for some in (examples, others))
    for cost in costs:
        machine = LogisticRegression(C=cost, max_iter=2000).fit(fitted.numpy(), classes.numpy())
        scores = torch.full((len(others), count), -torch.inf)
        scores[:, machine.classes_] = torch.from_numpy(
            machine.predict_log_proba(measured.numpy())
        ).float()
        yield scores


SVM = Classifier(svm_scores, COSTS)
LOGISTIC = Classifier(logistic_scores, (0.01, 0.1, 1.0, 10.0))


@dataclass(frozen=True, eq=False)
class Folds:
    """The vectors of a set with what is known of its items, and the folds that are measured."""

    vectors: Float[np.ndarray, "items windows features"]
    classes: Int[np.ndarray, " items"]
    folds: NDArray[Any]
    usable: Bool[np.ndarray, " items"]
    tested: tuple[str, ...]
    classifier: Classifier = SVM
    device: str = "cpu"

    def answers(self, progress: Progress = no_progress) -> Answers:
        """Each tested fold by what was fitted on the others, at the cost that is best inside those."""
        plans = {fold: self._rehearsals(fold) for fold in self.tested}
        wanted = {away: folds for folds, aways in plans.values() for away in aways}
        total = len(wanted) + len(self.tested)
        rehearsed = {}
        for away, folds in wanted.items():
            rehearsed[away] = folds._rehearse(away)
            progress(len(rehearsed), total)
        items, said, costs = [], [], {}
        for fold, (_, aways) in plans.items():
            found = sum(rehearsed[away][other] for away in aways for other in away - {fold})
            costs[fold] = self.classifier.costs[int(np.argmax(found))]
            test = self.usable & (self.folds == fold)
            (scores,) = self._clip_scores(self.usable & (self.folds != fold), test, [costs[fold]])
            items.append(np.flatnonzero(test))
            said.append(scores.argmax(1))
            progress(len(rehearsed) + len(costs), total)
        return Answers(np.concatenate(items), np.concatenate(said), costs)

    def _rehearsals(self, fold: str) -> tuple["Folds", list[frozenset[str]]]:
        """What is left out in turn, of which folds, to choose a cost for a tested fold: it and each
        of the others.

        Two folds that are both tested share a rehearsal: what is fitted on the rest serves either.
        Where only one other fold is there, its clips are dealt into groups, and each of these is
        left out.
        """
        others = [str(other) for other in np.unique(self.folds[self.folds != fold])]
        if len(others) > 1:
            return self, [frozenset((fold, other)) for other in others]
        fit = self.folds != fold
        groups = np.full(len(self.folds), "", dtype=object)
        for number in np.unique(self.classes[fit]):
            mine = np.flatnonzero(fit & (self.classes == number))
            groups[mine] = [
                f"{others[0]}, group {turn % INNER_GROUPS}" for turn in range(len(mine))
            ]
        inner = replace(self, folds=groups.astype(str), usable=self.usable & fit)
        return inner, [frozenset((str(group),)) for group in np.unique(groups[fit])]

    def _rehearse(self, away: frozenset[str]) -> dict[str, Int[np.ndarray, " costs"]]:
        """For each fold that is left out and each cost, how many of its clips are named right by
        what is fitted on the rest.
        """
        test = self.usable & np.isin(self.folds, list(away))
        scores = self._clip_scores(self.usable & ~test, test, self.classifier.costs)
        right = np.stack([one.argmax(1) == self.classes[test] for one in scores])
        return {fold: right[:, self.folds[test] == fold].sum(1) for fold in away}

    def _clip_scores(
        self, fit: NDArray[np.bool_], test: NDArray[np.bool_], costs: Sequence[float]
    ) -> list[NDArray[np.float32]]:
        """For each cost the scores `[clips, classes]` of the tested clips: the means over their
        windows.
        """
        windows = self.vectors.shape[1]
        examples, others = (self._rows(mask) for mask in (fit, test))
        classes = torch.from_numpy(self.classes[fit]).repeat_interleave(windows).to(self.device)
        found = self.classifier.scores(
            examples, classes, others, costs, int(self.classes.max()) + 1
        )
        return [
            scores.reshape(-1, windows, scores.shape[1]).mean(1).cpu().numpy() for scores in found
        ]

    def _rows(self, mask: NDArray[np.bool_]) -> Float[Tensor, "rows features"]:
        return torch.from_numpy(self.vectors[mask].reshape(-1, self.vectors.shape[2])).to(
            self.device
        )
