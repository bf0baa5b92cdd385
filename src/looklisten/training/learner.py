"""One step of training: augment, run the towers, compute the loss, descend.

With batch-norm over all processes and gathered negatives it is the same on one device or many, up
to rounding. A step is a pure function of weights, optimizer, config, shards and step: pairs and
augmentation are drawn from the seed and the step, whichever process computes which rows.
"""

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from looklisten.config import Config, TrainConfig
from looklisten.data.shards import Shards
from looklisten.errors import CheckpointError
from looklisten.model.initial_towers import begin_towers
from looklisten.model.l3net import L3Net
from looklisten.model.objectives import build_objective
from looklisten.model.objectives.objective import LossAndAccuracy
from looklisten.system.devices import Choice, choose_device, choose_precision, to_device
from looklisten.training.augmentation import step_seed, tower_inputs
from looklisten.training.computation import choose_compile, describe_computation
from looklisten.training.distributed import ProcessWorld, synchronize_batch_norm
from looklisten.training.frozen_towers.batches import AnyBatch, FeatureBatch
from looklisten.training.frozen_towers.cache import FeatureCache
from looklisten.training.optimizers import Optimizers, names_of_filters

FITTED_ROWS = 512
"""Frames, and seconds of sound, whose features say how the inputs of a fusion vary."""


class TrainingModule(nn.Module):
    """The network and the objective, from a batch to its loss.

    This is what is differentiated and shared by processes, and what torch.compile speeds up.
    """

    def __init__(self, network: L3Net, config: Config, world: ProcessWorld, compiled: bool) -> None:
        super().__init__()
        self.network = network
        self.objective = build_objective(config, network.features)
        self._gather = {"gather": world.gather} if config.train.gather_negatives else {}
        self._vision_tower = network.vision.forward
        self._audio_tower = network.audio.forward
        if compiled:
            # Functions are compiled, not modules, so that the network can be measured and saved
            # as it is.
            self._vision_tower = torch.compile(network.vision.forward)
            self._audio_tower = torch.compile(network.audio.forward)

    def forward(
        self,
        vision_input: Float[Tensor, "own ..."],
        audio_input: Float[Tensor, "own ..."],
        batch: AnyBatch,
    ) -> LossAndAccuracy:
        """The loss of `batch`, of which `tower_inputs` made the inputs.

        They are frames, as the vision tower reads them, and waveforms; or the features that the
        towers give of them.
        """
        # Without gathering, a process has only its own sounds to compare with.
        pairing = batch.pairing if self._gather else batch.pairing.of_own_rows()
        batch = replace(batch, pairing=pairing.to(vision_input.device))
        fusion = self.network.fusion
        features = (vision_input, audio_input)
        if not isinstance(batch, FeatureBatch):
            vision = self._vision_tower(vision_input)
            audio = self._audio_tower(self.network.front_end(audio_input))
            features = fusion.features(vision, audio)
        return self.objective(fusion, *features, batch, **self._gather)  # type: ignore[no-any-return]


class Learner:
    """A network in training on one device, with its optimizer.

    `saved_computation`: how the steps of a resumed run were computed, as its checkpoint says.
    Automatic choices then stay what they were.
    """

    def __init__(
        self,
        config: Config,
        device: str = "auto",
        world: ProcessWorld | None = None,
        saved_computation: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self.world = world or ProcessWorld()
        self.device = choose_device(device, self.world.local_rank)
        self.precision = choose_precision(self.device.value, config.train.precision)
        self.compiled = choose_compile(config, self.device.value)
        self.warnings: list[str] = []
        """Sentences about what is computed in another way than before the run was resumed."""
        if saved_computation:
            self._keep_choices(saved_computation)

        # Everything random from here on, in this order: network, then objective.
        torch.manual_seed(config.train.seed)
        self.network = to_device(L3Net(config.model), self.device.value)
        if config.train.batch_norm == "sync" and self.world.ranks > 1:
            synchronize_batch_norm(self.network, self.device.value)
        if self.world.ranks > 1:
            self.network.fusion.gather = self.world.gather
        module = TrainingModule(self.network, config, self.world, self.compiled.value == "on")
        self.module = module.to(self.device.value)
        self._shared_module: nn.Module | None = None

        self._frozen = frozen_parts(self.network, config, self.module.objective.trains_fusion)
        for part in self._frozen:
            part.requires_grad_(False)
        parameters = {
            _saved_name(name): parameter
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad
        }
        multipliers = tower_lr_multipliers(config.train) | dict(
            self.module.objective.lr_multipliers()
        )
        filters = {_saved_name(name) for name in names_of_filters(self.module)}
        self.optimizers = Optimizers(parameters, filters, config.train, multipliers)

    def _keep_choices(self, saved: Mapping[str, str]) -> None:
        """Keep the automatic choices of a resumed run, and note what differs all the same."""
        own_precision = self.precision
        if self.config.train.precision == "auto" and "precision" in saved:
            self.precision = Choice(saved["precision"], "as the run began")
        now = self.computation()
        same_device = saved.get("device") == now["device"]
        if self.config.train.compile == "auto" and "compile" in saved and same_device:
            self.compiled = Choice(saved["compile"], "as the run began")
            now = self.computation()

        changes = []
        for name, value in now.items():
            # A checkpoint of an older version lacks some of these facts.
            if saved.get(name, value) != value:
                changes.append(f"{name} was {saved[name]} and is {value}")
        if changes:
            self.warnings.append(
                f"{'; '.join(changes)}: the weights may differ in rounding from those of a run "
                f"that was never stopped"
            )
        slow_bfloat16 = self.precision.value == "bfloat16" and own_precision.value != "bfloat16"
        if slow_bfloat16 and own_precision.reason != "asked for":
            self.warnings.append(
                f"the run began in bfloat16 and continues in it, which is slow here "
                f"({own_precision.reason}); --train.precision float32 changes it"
            )

    def computation(self) -> dict[str, str]:
        """What the rounding of a step depends on: arithmetic, kernels and hardware."""
        return {
            "precision": self.precision.value,
            "compile": self.compiled.value,
            "deterministic": "on" if self.config.train.deterministic else "off",
            **describe_computation(self.device.value),
        }

    def initialize(self) -> None:
        """Begin with published towers, or with those of other checkpoints, as the config says.

        Raises CheckpointError when they do not fit, and PublishedFileError when published weights
        cannot be had.
        """
        begin_towers(self.network, self.config)

    def begin_with_features(self, clips: Shards, features: FeatureCache) -> None:
        """Let the fusion take from the features of `clips` what it needs to know of its inputs."""
        vision, audio = features.spread_over(clips, FITTED_ROWS)
        device = self.device.value
        self.network.fusion.fit_inputs(vision.to(device), audio.to(device))

    def step(
        self,
        parts: Sequence[AnyBatch],
        step: int,
        rate: float,
        augmented: bool = True,
    ) -> LossAndAccuracy:
        """Descend once over one batch, which comes in parts. Features are not augmented.

        The result is that of this process, still on the device.
        """
        if self._shared_module is None:
            # Wrapped here and not in the constructor, because wrapping copies the weights of the
            # first process to all, and a resumed run has restored them by now.
            self._shared_module = self.world.average_gradients(self.module, self.device.value)
        shared = self._shared_module
        self.module.train()
        # In training mode the statistics of a frozen batch-norm would change.
        for part in self._frozen:
            part.eval()
        self.optimizers.zero_grad()

        results = []
        for number, batch in enumerate(parts, 1):
            inputs = tower_inputs(batch, self.config, step, self.device.value, augmented)
            # Gradients are averaged over the processes once, after the last part.
            skips_averaging = number < len(parts) and self.world.ranks > 1
            averaging = shared.no_sync() if skips_averaging else contextlib.nullcontext()  # type: ignore[operator]
            with averaging:
                with self.autocast(), self._dropout_of(step, number):
                    result: LossAndAccuracy = shared(*inputs, batch)
                torch.autograd.backward(result.loss / len(parts))
            # Detached, because the graph of a part holds all its maps in memory.
            results.append(LossAndAccuracy(result.loss.detach(), result.accuracy))
        self.optimizers.step(rate)
        if len(results) == 1:
            return results[0]
        return LossAndAccuracy(
            loss=torch.stack([result.loss for result in results]).mean(),
            accuracy=torch.stack([result.accuracy for result in results]).mean(),
        )

    @contextlib.contextmanager
    def _dropout_of(self, step: int, part: int) -> Iterator[None]:
        """Let what is left out depend on seed, step and part alone, so that a resume is exact."""
        settings = self.config.train
        if not self.config.model.fusion_dropout:
            yield
            return
        device = torch.device(self.device.value)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(step_seed(settings.seed, step * settings.accumulate + part))
            yield

    def release(self) -> None:
        """Release what the processes share. Call it before the process group is destroyed."""
        # The destructor of DistributedDataParallel may be the last to release the group. It then
        # waits for a thread of gloo while it holds the interpreter's lock, for which that thread
        # waits: the run hangs at its end. With torch 2.13, of groups created and destroyed one
        # after the other, the fourth hung; with the module released first none of 116 did.
        self._shared_module = None
        # Where nothing is shared there is nothing to wait for, and this takes up to a second.
        if not self.world.is_alone:
            gc.collect()

    def autocast(self) -> torch.autocast:
        """The context that the towers compute in."""
        device_type = torch.device(self.device.value).type
        is_bfloat16 = self.precision.value == "bfloat16"
        return torch.autocast(device_type, torch.bfloat16, enabled=is_bfloat16)

    def gradient_norm(self) -> Float[Tensor, ""]:
        """The length of the gradient of the last step, on the device."""
        # Frozen parameters, and those that the objective does not reach, have none.
        gradients = []
        for parameter in self.module.parameters():
            if parameter.grad is not None:
                gradients.append(parameter.grad)
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        return norm

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """What a step needs besides the network.

        These are the optimizer's tensors, as `parameter/key`, and the objective's parameters, as
        `objective/parameter`.
        """
        tensors = self.optimizers.tensors()
        for name, value in self.module.objective.state_dict().items():
            tensors[f"objective/{name}"] = value
        return tensors

    def restore(self, network: dict[str, Tensor], optimizer_tensors: dict[str, Tensor]) -> None:
        """Return to the state of a checkpoint.

        Raises CheckpointError when the tensors are of another network.
        """
        of_objective: dict[str, Tensor] = {}
        of_optimizers: dict[str, Tensor] = {}
        for name, value in optimizer_tensors.items():
            prefix, _, key = name.rpartition("/")
            if prefix == "objective":
                of_objective[key] = value
            else:
                of_optimizers[name] = value
        try:
            self.network.load_state_dict(network)
            self.module.objective.load_state_dict(of_objective)
            self.optimizers.restore(of_optimizers)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint is of another network: {str(error).splitlines()[-1].strip()}"
            ) from None


def _saved_name(name: str) -> str:
    """The name of a parameter of `TrainingModule` in a checkpoint."""
    return name.removeprefix("network.")


def tower_lr_multipliers(settings: TrainConfig) -> dict[str, float]:
    """Factors of the learning rate of the towers, by the beginning of a parameter's name."""
    if not settings.tower_learning_rate:
        return {}
    multiplier = settings.tower_learning_rate / settings.learning_rate
    return {"vision.": multiplier, "audio.": multiplier}


def frozen_parts(network: L3Net, config: Config, trains_fusion: bool) -> list[nn.Module]:
    """The modules that training leaves as they are."""
    parts: dict[str, list[nn.Module]] = {
        "none": [],
        "vision": [network.vision],
        "audio": [network.audio],
        "towers": [network.vision, network.audio],
    }
    frozen = parts[config.train.freeze]
    return frozen if trains_fusion else [*frozen, network.fusion]
