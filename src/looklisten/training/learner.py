"""x"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from looklisten.config import Config, ModelConfig
from looklisten.data.pairs import PairBatch
from looklisten.errors import CheckpointError
from looklisten.model.checkpoint import open_checkpoint
from looklisten.model.l3net import L3Net
from looklisten.model.objectives import build_objective
from looklisten.model.objectives.labels import LabelsObjective
from looklisten.model.objectives.objective import LossAndAccuracy
from looklisten.system.devices import Choice, choose_device, choose_precision, to_device
from looklisten.system.environment import processor_name
from looklisten.training.augmentation import augment, on_device
from looklisten.training.distributed import ProcessWorld, synchronize_batch_norm

THRESHOLD_HASTE = 10.0
"""Times the learning rate, for the threshold of the yes and no beside a contrastive objective
(LOG.md, 2026-11-24).
"""


COMPILE_MIN_STEPS = 1000
"""Shorter runs end before torch.compile has earned its minute back."""


CUBLAS_WORKSPACE = ":4096:8"
"""A setting with which NVIDIA's matrix product gives the same bits each time (CUDA's documentation
names two).
"""


class TrainingModule(nn.Module):
    """The network and the question it is asked, from a batch to its loss: what is differentiated,
    compiled and shared.
    """

    def __init__(self, network: L3Net, config: Config, world: ProcessWorld, compiled: bool) -> None:
        super().__init__()
        self.network = network
        self.objective = build_objective(config)
        self._gather = world.gather if config.train.gather_negatives else None
        # A compiled function beside the module, which stays as it is for measuring and saving.
        towers = (network.vision.forward, network.audio.forward)
        self._see, self._hear = (torch.compile(tower) for tower in towers) if compiled else towers

    def forward(
        self,
        frames: Float[Tensor, "own channels height width"],
        waveforms: Float[Tensor, "own samples"],
        *asked: Tensor,
    ) -> LossAndAccuracy:
        """`asked`: the masks of positives and of negatives, `[own, all]`; with labels each row's
        place among the classes, `[own]`.
        """
        fusion = self.network.fusion
        vision, audio = fusion.read(
            self._see(self.network.normalized(frames)),
            self._hear(self.network.front_end(waveforms)),
        )
        if isinstance(self.objective, LabelsObjective):
            return self.objective(vision, audio, *asked)  # type: ignore[no-any-return]
        sides = fusion.project(vision, audio)
        others = {"gather": self._gather} if self._gather else {}
        return self.objective(fusion, *sides, *asked, **others)  # type: ignore[no-any-return]


class Learner:
    """A network in training on one device, with its optimizer.

    `before`: how the steps of a resumed run were computed, as its checkpoint says; automatic
        choices stay what they were then.
    """

    def __init__(
        self,
        config: Config,
        device: str = "auto",
        world: ProcessWorld | None = None,
        before: Mapping[str, str] | None = None,
    ) -> None:
        self.config, self.world = config, world or ProcessWorld()
        self.device = choose_device(device, self.world.local_rank)
        self.precision = choose_precision(self.device.value, config.train.precision)
        self.compiled = choose_compile(config, self.device.value)
        self.changes: list[str] = []
        """Sentences about what is computed otherwise than before."""
        if before:
            self._go_on_as(before)
        torch.manual_seed(config.train.seed)
        self.network = to_device(L3Net(config.model), self.device.value)
        if config.train.batch_norm == "sync" and self.world.ranks > 1:
            synchronize_batch_norm(self.network, self.device.value)
        self.pretext = TrainingModule(
            self.network, config, self.world, self.compiled.value == "on"
        ).to(self.device.value)
        # Beside a contrastive objective the two numbers of the threshold have far to go, and
        # nothing but themselves to disturb.
        contrastive = config.train.objective == "contrastive"
        self._frozen = frozen_parts(self.network, config)
        for part in self._frozen:
            part.requires_grad_(False)
        named = {name: p for name, p in self.pretext.named_parameters() if p.requires_grad}
        threshold = {
            name: p
            for name, p in named.items()
            if contrastive and name.startswith("network.fusion.fc3.")
        }
        rest = {name: p for name, p in named.items() if name not in threshold}
        groups = [
            {"params": list(group.values()), "haste": haste}
            for group, haste in ((rest, 1.0), (threshold, THRESHOLD_HASTE))
            if group
        ]
        self._parameters = {
            name.removeprefix("network."): p for name, p in (rest | threshold).items()
        }
        """By name, in the optimizer's order."""
        self.optimizer = torch.optim.Adam(
            groups, config.train.learning_rate, weight_decay=config.train.weight_decay, fused=True
        )
        self._shared: nn.Module | None = None

    def _go_on_as(self, before: Mapping[str, str]) -> None:
        """Keep the automatic choices of a run that goes on, and note what differs all the same."""
        fast = self.precision
        if self.config.train.precision == "auto" and "precision" in before:
            self.precision = Choice(before["precision"], "as the run began")
        here = self.computing()
        same_device = before.get("device") == here["device"]
        if self.config.train.compile == "auto" and "compile" in before and same_device:
            self.compiled = Choice(before["compile"], "as the run began")
            here = self.computing()
        changed = [
            f"{name} was {before[name]} and is {here[name]}"
            for name in here
            if name in before and before[name] != here[name]
        ]
        if changed:
            self.changes.append(
                f"{'; '.join(changed)}: the weights may differ in rounding from those of a run that was never stopped"
            )
        if (
            self.precision.value == "bfloat16"
            and fast.value != "bfloat16"
            and fast.reason != "asked for"
        ):
            self.changes.append(
                f"the run began in bfloat16 and goes on in it, which is slow here ({fast.reason}); --train.precision float32 changes it"
            )

    def computing(self) -> dict[str, str]:
        """What the rounding of a step depends on: arithmetic, kernels and hardware."""
        kind = torch.device(self.device.value).type
        return {
            "precision": self.precision.value,
            "compile": self.compiled.value,
            "deterministic": "on" if self.config.train.deterministic else "off",
            "device": kind,
            "hardware": torch.cuda.get_device_name(self.device.value)
            if kind == "cuda"
            else processor_name(),
            "threads": str(torch.get_num_threads()),
            "torch": torch.__version__,
        }

    def initialize(self) -> None:
        """Begin with the towers of other checkpoints, where the config names them; raises
        CheckpointError when they do not fit.
        """
        for side, path in (
            ("vision", self.config.train.vision_from),
            ("audio", self.config.train.audio_from),
        ):
            if path:
                getattr(self.network, side).load_state_dict(tower_of(path, side, self.config.model))

    def step(
        self, parts: Sequence[PairBatch], step: int, rate: float, augmented: bool = True
    ) -> LossAndAccuracy:
        """Descend once, over one batch that comes in parts; the outcome is this process's, still on
        the device.
        """
        # Wrapped late, so that what a checkpoint held is what all processes begin with.
        shared = self._shared = self._shared or self.world.shared(self.pretext, self.device.value)
        self.pretext.train()
        for part in self._frozen:
            part.eval()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["haste"]
        self.optimizer.zero_grad(set_to_none=True)
        outcomes = []
        for number, batch in enumerate(parts, 1):
            inputs = self._inputs(batch, step, augmented)
            silent = number < len(parts) and self.world.ranks > 1
            with shared.no_sync() if silent else contextlib.nullcontext():  # type: ignore[operator]
                with self.autocast():
                    outcome: LossAndAccuracy = shared(*inputs)
                torch.autograd.backward(outcome.loss / len(parts))
            outcomes.append(outcome)
        self.optimizer.step()
        if len(parts) == 1:
            return LossAndAccuracy(outcomes[0].loss.detach(), outcomes[0].accuracy)
        return LossAndAccuracy(
            loss=torch.stack([one.loss.detach() for one in outcomes]).mean(),
            accuracy=torch.stack([one.accuracy for one in outcomes]).mean(),
        )

    def autocast(self) -> torch.autocast:
        return torch.autocast(
            torch.device(self.device.value).type,
            torch.bfloat16,
            enabled=self.precision.value == "bfloat16",
        )

    def gradient_norm(self) -> Float[Tensor, ""]:
        """The length of the gradient of the last step, on the device."""
        gradients = [
            parameter.grad for parameter in self.pretext.parameters() if parameter.grad is not None
        ]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        return norm

    def _inputs(self, batch: PairBatch, step: int, augmented: bool) -> tuple[Tensor, ...]:
        if augmented:
            frames, waveforms = augment(batch, self.config, step, self.device.value)
        else:
            frames, waveforms = on_device(batch, self.device.value)
        return (
            frames,
            waveforms,
            *(asked.to(self.device.value, non_blocking=True) for asked in self._asked(batch)),
        )

    def _asked(self, batch: PairBatch) -> tuple[Tensor, ...]:
        settings = self.config.train
        if settings.objective == "labels":
            return (torch.tensor([settings.classes.index(label) for label in batch.labels]),)
        pairing = batch.pairing if settings.gather_negatives else batch.pairing.of_own_rows()
        return pairing.masks(everyone=settings.negatives == "all")

    def moments(self) -> dict[str, Tensor]:
        """What a step needs beside the network: the optimizer's tensors and the objective's
        parameters, by name.
        """
        names = list(self._parameters)
        state = self.optimizer.state_dict()["state"]
        found = {
            f"{names[index]}/{key}": value
            for index, values in state.items()
            for key, value in values.items()
        }
        return found | {
            f"objective/{name}": value
            for name, value in self.pretext.objective.state_dict().items()
        }

    def restore(self, network: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        """Go back to what a checkpoint held; raises CheckpointError when the tensors are of another
        network.
        """
        parameters = self._parameters
        index = {name: number for number, name in enumerate(parameters)}
        state: dict[int, dict[str, Tensor]] = {}
        try:
            self.network.load_state_dict(network)
            for key, value in moments.items():
                name, _, moment = key.rpartition("/")
                if name == "objective":
                    parameters[f"objective.{moment}"].data.copy_(value)
                    continue
                if value.shape == parameters[name].shape:
                    # The fused step walks parameter and moment side by side in memory, so both must
                    # lie in the same layout.
                    value = torch.empty_like(parameters[name]).copy_(value)
                state.setdefault(index[name], {})[moment] = value
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint is of another network: {str(error).splitlines()[-1].strip()}"
            ) from None
        self.optimizer.load_state_dict(
            {"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]}
        )


def frozen_parts(network: L3Net, config: Config) -> list[nn.Module]:
    """What training leaves as it is: the towers that the config freezes, and a fusion that nothing
    is asked of.
    """
    towers = {
        "none": [],
        "vision": [network.vision],
        "audio": [network.audio],
        "towers": [network.vision, network.audio],
    }
    unasked = [network.fusion] if config.train.objective == "labels" else []
    return [*towers[config.train.freeze], *unasked]


TOWER_SETTINGS = {
    "vision": ("widths", "first_stride", "frames_per_pair"),
    "audio": ("widths", "first_stride", "front_end", "window"),
}
"""What two networks must have in common for one to begin with the other's tower."""


def tower_of(path: str, side: str, config: ModelConfig) -> dict[str, Tensor]:
    """The weights of one tower of a checkpoint; raises CheckpointError when a network of `config`
    cannot have it.
    """
    saved = open_checkpoint(path)
    for name in TOWER_SETTINGS[side]:
        theirs, ours = getattr(saved.config.model, name), getattr(config, name)
        if theirs != ours:
            raise CheckpointError(
                f"the {side} tower of {path} cannot be taken over: its model.{name} is {theirs}, here it is {ours}; set it to the same"
            )
    weights: dict[str, Tensor] = getattr(saved.model(), side).state_dict()
    return weights


def choose_compile(config: Config, device: str) -> Choice:
    """Whether torch.compile makes the towers' kernels. A resumed run keeps what its checkpoint says
    (`Learner`).
    """
    wanted = config.train.compile
    if wanted != "auto":
        return Choice(wanted, "asked for")
    if not device.startswith("cuda"):
        return Choice("off", "on a CPU it measured 0.9 times as fast")
    if config.train.steps < COMPILE_MIN_STEPS:
        return Choice("off", f"fewer than {COMPILE_MIN_STEPS} steps")
    return Choice("on", "batch-norm and ReLU become one pass over memory")


@contextlib.contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """Ask CUDA for kernels that give the same bits each time; the settings of the process are as
    before when the block ends.

    An operation that has no such kernel says so in a warning of PyTorch and goes on.
    """
    if not wanted:
        yield
        return
    enabled, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn, benchmark = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    # cuBLAS reads it when it is first used, so it must be there before the first step.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn, benchmark
        if workspace is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
