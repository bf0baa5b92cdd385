"""One-vs-all linear support vector machines, all classes and all costs in one go, on any device.
Knows tensors only.

The objective is that of liblinear, which the paper's predecessor used and scikit-learn's
`LinearSVC` is: half the squared length of the weights (the intercept's too) plus C times the sum of
squared hinge losses. liblinear walks over one example at a time in double precision: of 2,400
windows of 6,144 numbers, at a cost of 10, one class takes it 6.7 s of a core, and the protocol asks
for ten classes, four costs and fifteen training sets. Here Newton steps (Chapelle, "Training a
support vector machine in the primal", 2007) are taken for all classes together, their systems
solved by conjugate gradients over the products of the examples with one another, which is made of
matrix products: all ten classes at all four costs take 7 s of a core. Decision values are
liblinear's within 1 % of the largest.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

COSTS = (0.1, 1.0, 10.0, 100.0)
"""C times the number of features, which after z-scoring is the mean squared length of an example:
so one grid fits all layers. The largest is often the one that is chosen: beyond it hardly any
example is inside the margin, and little changes but the time.
"""
NEWTON_STEPS = 30
GRADIENT_STEPS = 200
RESIDUAL = 1e-3
"""A Newton system is solved to this share of its right side ..."""
GAIN = 1e-4
"""... and steps end when one lowers no loss by more than this share of it."""
RANK = 200
"""Of `Axes` ..."""
SMALLEST_RIDGE = 1e-5
"""... well over what single precision loses; about the inverse is enough of them."""
STEP_LENGTHS = (1.0, 0.5, 0.25, 0.125)
GRAM_SHARE = 2.0
"""Products of all examples are computed once where examples are at most so many times the features;
else they are made anew each time.
"""

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Scaling:
    """Means and deviations of the examples that were fitted on, and nothing else."""

    mean: Float[Tensor, " features"]
    deviation: Float[Tensor, " features"]

    @classmethod
    def of(cls, examples: Float[Tensor, "examples features"]) -> "Scaling":
        deviation, mean = torch.std_mean(examples, dim=0, correction=0)
        return cls(mean, torch.where(deviation > 0, deviation, 1.0))

    def apply(
        self, examples: Float[Tensor, "examples features"]
    ) -> Float[Tensor, "examples width"]:
        """z-scored, over the root of their number, with the intercept's constant behind them."""
        scaled = (examples - self.mean).div_(self.deviation)
        return torch.cat([scaled, scaled.new_ones(len(scaled), 1)], dim=1).div_(
            examples.shape[1] ** 0.5
        )


@dataclass(frozen=True, eq=False)
class Axes:
    """The directions in which examples differ most: along them a Newton system is solved at once,
    and few steps are left for the rest.

    (A low-rank preconditioner, as in "Randomized Nystrom preconditioning", Frangella, Tropp and
    Udell 2023.) Of 2,400 windows of 1,536 numbers, at equal tolerances, the products at a cost of
    100 fell from 1,291 to 91, the time of four costs to an eighth.
    """

    basis: Float[Tensor, "examples rank"]
    squares: Float[Tensor, " rank"]
    """Squared singular values."""

    @classmethod
    def of(cls, fitted: Float[Tensor, "examples width"]) -> "Axes":
        with torch.random.fork_rng([fitted.device] if fitted.device.type == "cuda" else []):
            torch.manual_seed(0)
            basis, values, _ = torch.svd_lowrank(fitted, q=min(RANK, *fitted.shape), niter=1)
        squares = values.square()
        return cls(basis, squares.clamp_min(1e-6 * float(squares[0])))

    def solver(self, active: Float[Tensor, "examples classes"], ridge: float) -> Product:
        """About the inverse of a Newton system in which the `active` examples of each class take
        part.
        """
        overlaps = torch.stack([self.basis.T @ (mask[:, None] * self.basis) for mask in active.T])
        # With fewer active examples than axes little but the ridge holds them up: double precision,
        # on the CPU, as not every device has it.
        ridges = torch.diag((ridge / self.squares).clamp_min(SMALLEST_RIDGE)).double().cpu()
        factors = torch.linalg.cholesky(overlaps.double().cpu() + ridges).to(overlaps)

        def solve(some: Float[Tensor, "examples classes"]) -> Float[Tensor, "examples classes"]:
            along = torch.cholesky_solve((self.basis.T @ (active * some)).T[..., None], factors)[
                ..., 0
            ]
            return (some - active * (self.basis @ along.T)) / ridge

        return solve


def svm_scores(
    examples: Float[Tensor, "examples features"],
    classes: Int[Tensor, " examples"],
    others: Float[Tensor, "others features"],
    costs: Sequence[float],
    count: int,
) -> Iterator[Float[Tensor, "others classes"]]:
    """For each of `costs`, which ascend, the decision values of `others` by the machines of `count`
    classes fitted on `examples`.
    """
    scaling = Scaling.of(examples)
    fitted, measured = scaling.apply(examples), scaling.apply(others)
    signs = torch.where(classes[:, None] == torch.arange(count, device=classes.device), 1.0, -1.0)
    if len(fitted) <= GRAM_SHARE * fitted.shape[1]:
        products = (fitted @ fitted.T, measured @ fitted.T)
    else:
        products = None

    def product(weights: Tensor) -> Tensor:
        return products[0] @ weights if products else fitted @ (fitted.T @ weights)

    axes = Axes.of(fitted)
    weights = torch.zeros_like(signs)
    for cost in costs:
        weights = squared_hinge(product, axes, signs, cost, weights)
        yield products[1] @ weights if products else measured @ (fitted.T @ weights)


def squared_hinge(
    product: Product,
    axes: Axes,
    signs: Float[Tensor, "examples classes"],
    cost: float,
    start: Float[Tensor, "examples classes"],
) -> Float[Tensor, "examples classes"]:
    """The weight of each example in each class's machine, whose decision values of the examples are
    `product(weights)`.
    """
    ridge = 1 / (2 * cost)

    def loss(values: Tensor, lengths: Tensor) -> Tensor:
        return 0.5 * lengths + cost * (1 - signs * values).clamp_min(0).square().sum(0)

    weights, values = start, product(start)
    now = loss(values, (weights * values).sum(0))
    for _ in range(NEWTON_STEPS):
        active = (signs * values < 1).to(signs.dtype)

        def system(some: Tensor, active: Tensor = active) -> Tensor:
            return active * product(active * some) + ridge * some

        aim = _solve(system, axes.solver(active, ridge), active * signs, active * weights)
        # A system that single precision cannot solve moves nothing, and the class keeps its last
        # weights.
        step = torch.nan_to_num(aim - weights, nan=0.0, posinf=0.0, neginf=0.0)
        gain = product(step)
        # Along a step everything is linear or quadratic, so that shorter ones cost no product: each
        # class takes its best.
        bends = [
            (one * other).sum(0)
            for one, other in ((weights, values), (weights, gain), (step, gain))
        ]
        tried = torch.stack(
            [
                loss(values + t * gain, bends[0] + 2 * t * bends[1] + t * t * bends[2])
                for t in STEP_LENGTHS
            ]
        )
        best, which = tried.min(0)
        length = torch.where(
            best < now, torch.tensor(STEP_LENGTHS, device=signs.device)[which], 0.0
        )
        weights, values = weights + length * step, values + length * gain
        before, now = now, torch.minimum(best, now)
        if bool(((before - now) <= GAIN * before).all()):
            break
    return weights


def _solve(system: Product, nearly: Product, wanted: Tensor, start: Tensor) -> Tensor:
    """Conjugate gradients, each column for itself; `nearly` is about the inverse of `system`."""
    found = start
    residual = wanted - system(found)
    direction = better = nearly(residual)
    square = (residual * better).sum(0)
    enough = RESIDUAL**2 * wanted.square().sum(0)
    for _ in range(GRADIENT_STEPS):
        turned = system(direction)
        bend = (direction * turned).sum(0)
        # Where rounding has eaten what is left of the curvature, a column has its answer.
        going = (residual.square().sum(0) > enough) & (bend > 0)
        if not bool(going.any()):
            break
        length = torch.where(going, square / bend, 0.0)
        found = found + length * direction
        residual = residual - length * turned
        better = nearly(residual)
        new = (residual * better).sum(0)
        direction = better + (new / square.clamp_min(1e-30)) * direction
        square = torch.where(going, new, square)
    return found
