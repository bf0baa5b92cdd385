"""Opens a network by any name: a run, a folder, the Hub, OpenL3, another model or a recipe.

A name is one of:

- the folder of a run, of its checkpoints, or of one checkpoint;
- a folder that `publish` or `export` wrote;
- a name on the Hugging Face Hub: `org/name` if there is no such path here, or `hf-hub:org/name`;
- a network of OpenL3: `openl3:audio-mel256-env`, a Keras file (`.h5`), or a folder of `convert`;
- a model of transformers with vectors of pictures, sounds and texts: `hf:org/name`, `hf:FOLDER`;
- `start`, which comes with the package (a folder here of that name is `./start`);
- `untrained:RECIPE`, the network of a recipe with its initial weights, and with the published
  weights of backbones that have some.

Knows names and checkpoints. Does not know how to download, and no weights of other projects.
"""

import difflib
import importlib
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from numpy.typing import NDArray

from looklisten.config import Config
from looklisten.errors import CheckpointError, ConfigError
from looklisten.model.checkpoint import Checkpoint, open_checkpoint
from looklisten.model.initial_towers import begin_published_towers
from looklisten.model.l3net import L3Net
from looklisten.model.network_key import network_key
from looklisten.model.objectives import Objective, build_objective
from looklisten.model.published_folder import is_published, read_published
from looklisten.model.shipped import SHIPPED, is_shipped, open_shipped, shipped_training_videos
from looklisten.model.training_videos import HELD_OUT, TRAINED_ON, recorded_videos
from looklisten.names import first_few, printable
from looklisten.system.devices import choose_device, to_device

UNTRAINED_PREFIX = "untrained:"
OPENL3_PREFIX = "openl3:"
OPENL3_SUFFIXES = (".h5", ".h5.gz", ".hdf5")
OPENL3_FILE = "openl3.json"
"""The file that makes a folder one that `convert` wrote."""
HUB_PREFIX = "hf-hub:"
HF_PREFIX = "hf:"
"""Of models that transformers knows; `hf-hub:` is for networks of looklisten."""
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
RUNS_FOLDER = "runs"
"""Runs are saved here by default, so a mistyped run must not become a request to a server."""
LISTED_RUNS = 10
"""An error names so many runs at most."""

# Downloads and OpenL3 belong to `interop`, which is above `model`, and imports only point down.
# They are therefore named here and imported when a name needs them.
LOADERS = {
    OPENL3_PREFIX: "looklisten.interop.openl3.models:load",
    HUB_PREFIX: "looklisten.interop.hub:download_network",
    HF_PREFIX: "looklisten.interop.hf.encoder:load_encoder",
}

_log = logging.getLogger("looklisten")


@runtime_checkable
class HasSplit(Protocol):
    """What `Run.held_out` needs of shards, which `model` may not import."""

    @property
    def video_ids(self) -> NDArray[Any]: ...

    def held_out(self, run: Any) -> Any: ...


AnyShards = TypeVar("AnyShards", bound=HasSplit)


@dataclass(frozen=True)
class TrainingSplit:
    """The rule by which training splits the videos of its shards.

    Shards that name splits decide by their column `split`. In other shards the hash of a video id
    decides, so that the rule needs no seed.
    """

    held_out_fraction: float
    """The share of all videos that is held out."""
    validation_fraction: float
    """The share of the other videos that is kept for choosing thresholds."""


class Run:
    """An open network with what is known of its training.

    `network` is in evaluation mode: an `L3Net`, or a model of others, which gives vectors only.
    `checkpoint` is None for a network that was not read from a checkpoint of looklisten.
    """

    def __init__(
        self,
        name: str,
        network: L3Net | Any,
        checkpoint: Checkpoint | None = None,
        config: Config | None = None,
    ) -> None:
        self.name = name
        self.network = network
        self.checkpoint = checkpoint
        self._config = checkpoint.config if checkpoint else config

    def __repr__(self) -> str:
        step = "" if self.step is None else f", step {self.step:,}"
        return f"Run({self.name!r}, {type(self.network).__name__}{step})"

    @property
    def l3net(self) -> L3Net:
        """The network, for work that needs both towers or a config.

        Raises CheckpointError for a network of OpenL3 or of transformers.
        """
        if not isinstance(self.network, L3Net):
            raise CheckpointError(encoder_refusal(self.name))
        return self.network

    @property
    def config(self) -> Config:
        """The config of the training, or of the recipe for an untrained network.

        Raises CheckpointError for a network that was saved without its training, and for a network
        of OpenL3 or of transformers.
        """
        if self._config is None:
            raise CheckpointError(encoder_refusal(self.name))
        if not self.knows_split:
            # Such a config has only defaults for the training, and would split videos by them.
            raise CheckpointError(
                f"{self.name} is a network without its training, so nobody knows which videos "
                "were held out; give the folder of a run, or one that was saved from a run"
            )
        return self._config

    @property
    def knows_split(self) -> bool:
        """Whether it is known by which rule training held videos out, so that `config` is there."""
        return self._config is not None and bool(self.step or self.is_untrained)

    @property
    def is_shipped(self) -> bool:
        """Whether it comes with the package: it held out no video of anybody's shards."""
        return is_shipped(self.name)

    @property
    def path(self) -> Path | None:
        """The folder or file that the network was read from; None for an untrained network."""
        if self.checkpoint is not None:
            return self.checkpoint.path
        return Path(self.name) if Path(self.name).exists() else None

    @property
    def step(self) -> int | None:
        """The training step of the weights; 0 without training, None where nobody knows."""
        if self.checkpoint is not None:
            return self.checkpoint.step
        return 0 if self.is_untrained else None

    @property
    def named_facts(self) -> dict[str, Any]:
        """The name of the network and its step, for the head of a table of results."""
        return {"network": self.name, "step": self.step}

    @property
    def is_untrained(self) -> bool:
        """Whether this is `untrained:RECIPE`."""
        return self.name.startswith(UNTRAINED_PREFIX)

    @property
    def seed(self) -> int:
        """The seed of the initial weights; 0 where nobody knows it."""
        seed = self.network.initial_seed if isinstance(self.network, L3Net) else None
        return seed or 0

    @cached_property
    def network_key(self) -> str:
        """A hash of the weights and of everything else that changes vectors."""
        return network_key(self.network, self.name)

    @property
    def split(self) -> TrainingSplit:
        """The rule by which training held videos out. Raises CheckpointError as `config` does."""
        train = self.config.train
        return TrainingSplit(train.held_out_fraction, train.validation_fraction)

    def held_out(self, shards: AnyShards) -> AnyShards:
        """The clips of `shards` that training holds out.

        Warns when the run was trained on videos with the same ids. Raises CheckpointError as
        `config` does.
        """
        held_out: AnyShards = shards.held_out(self)
        self.warn_of_trained_videos(held_out.video_ids.tolist())
        return held_out

    @cached_property
    def _recorded_videos(self) -> dict[str, frozenset[str]]:
        if self.checkpoint is None or is_published(self.checkpoint.path):
            return {TRAINED_ON: frozenset(), HELD_OUT: frozenset()}
        shipped = shipped_training_videos(self.checkpoint.path)
        if shipped:
            return {TRAINED_ON: shipped, HELD_OUT: frozenset()}
        # A checkpoint is RUN/checkpoints/step-000000100.
        run_folder = self.checkpoint.path.parent.parent
        return recorded_videos(run_folder, self.checkpoint.step)

    @property
    def trained_videos(self) -> frozenset[str]:
        """The ids of the videos that the run was trained on; empty if it did not record them."""
        return self._recorded_videos[TRAINED_ON]

    @property
    def held_out_videos(self) -> frozenset[str]:
        """The ids of the videos that the run held out; empty if it did not record them."""
        return self._recorded_videos[HELD_OUT]

    def warn_of_trained_videos(self, video_ids: Iterable[str]) -> None:
        """Warn when the run was trained on videos with these ids."""
        trained = sorted(self.trained_videos & set(video_ids))
        if trained:
            _log.warning(
                "%d videos have the same ids as videos that %s was trained on (%s). If they are "
                "the same videos, the accuracy on them is too high",
                len(trained),
                self.name,
                first_few(trained),
            )

    def objective(self) -> Objective:
        """The training objective with its own weights, in evaluation mode, on the CPU."""
        if self.checkpoint is not None:
            return self.checkpoint.objective()
        return build_objective(self.config, self.l3net.features).eval()


def open_network(
    name: str | Path, device: str = "cpu", *, strict: bool = True, **download_options: Any
) -> Run:
    """The network that `name` means, in evaluation mode on `device`, as a `Run`.

    `name`: see the top of this module. `device`: cpu, cuda, mps or auto. If not `strict`, weights
    that are missing from the file are initialized at random. `download_options` are those of
    `looklisten.interop.hub.download_network`. Raises CheckpointError, or ConfigError for an unknown
    recipe.
    """
    run = _open(name, strict, download_options)
    chosen = choose_device(device).value
    if chosen == "cpu":
        # Not channels-last, which changes the last digits of figures measured on a CPU.
        run.network.to(chosen)
    else:
        to_device(run.network, chosen)
    return run


open = open_network
"""`looklisten.open`: the public name, which inside the package would hide Python's own `open`."""


def load(name: str | Path) -> L3Net | Any:
    """The network that `name` means, in evaluation mode, on the CPU.

    `name` is as for `looklisten.open`, which also gives what is known of the training. A network
    of OpenL3 comes as another `Encoder`. Raises CheckpointError, or ConfigError for an unknown
    recipe.
    """
    return open_network(name).network


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    map_location: str = "cpu",
    strict: bool = True,
) -> L3Net:
    """A network of looklisten, in evaluation mode, on the device `map_location`.

    The parameters have the names that Hugging Face gives them. If not `strict`, weights that are
    missing from the file are initialized at random. Raises CheckpointError.
    """
    run = open_network(
        name,
        strict=strict,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        token=token,
    )
    return run.l3net.to(map_location)


def is_openl3(name: str | Path) -> bool:
    """Whether `name` is a network of OpenL3: its name, a Keras file, or a folder of `convert`."""
    text = str(name)
    if text.startswith(OPENL3_PREFIX) or text.endswith(OPENL3_SUFFIXES):
        return True
    return (Path(name) / OPENL3_FILE).is_file()


def hub_name(name: str | Path) -> str | None:
    """The name on the Hugging Face Hub, such as `org/name`; None when `name` is a path.

    A name whose first part is a folder here is a path, and so is a `Path`. `hf-hub:org/name` is
    always a name on the Hub.
    """
    if isinstance(name, Path):
        return None
    bare_name = name.removeprefix(HUB_PREFIX)
    if not HUB_NAME.fullmatch(bare_name):
        return None
    if bare_name != name:
        return bare_name
    first_folder = name.partition("/")[0]
    is_path = first_folder == RUNS_FOLDER or Path(first_folder).exists()
    return None if is_path else name


def _open(name: str | Path, strict: bool, download_options: dict[str, Any]) -> Run:
    text = str(name)
    if text.startswith(UNTRAINED_PREFIX):
        return _untrained(text)
    if is_shipped(name):
        checkpoint = open_shipped(text)
        return Run(text, checkpoint.model(strict), checkpoint)
    if is_openl3(name):
        return Run(text, _loader(OPENL3_PREFIX)(name))
    if text.startswith(HF_PREFIX):
        return Run(text, _loader(HF_PREFIX)(text))
    on_hub = hub_name(name)
    path = _loader(HUB_PREFIX)(on_hub, **download_options) if on_hub else Path(name)
    if not path.exists():
        raise CheckpointError(_absence(path))
    checkpoint = read_published(path) if is_published(path) else open_checkpoint(path)
    return Run(text, checkpoint.model(strict), checkpoint)


def _absence(path: Path) -> str:
    """The error for a path that is not there, with a similar name and the runs of this folder."""
    folders = Path(RUNS_FOLDER).glob("*/checkpoints")
    runs = sorted(folder.parent.as_posix() for folder in folders)
    names = {name.casefold(): name for name in (*SHIPPED, *runs)}
    similar = difflib.get_close_matches(path.as_posix().casefold(), names, 1)
    sentence = (
        f"{path} is not there; give the folder of a run that `looklisten train` or "
        f"`looklisten adapt` wrote, one of its checkpoints, or {' or '.join(SHIPPED)}"
    )
    if similar:
        sentence += f"; did you mean {printable(names[similar[0]])}?"
    return f"{sentence} (runs here: {first_few(runs, LISTED_RUNS)})" if runs else sentence


def _untrained(name: str) -> Run:
    config = Config.load(name.removeprefix(UNTRAINED_PREFIX))
    # The caller's own random numbers go on as if nothing had been drawn here.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        network = L3Net(config.model).eval()
    begin_published_towers(network)
    network.initial_seed = config.train.seed
    return Run(name, network, config=config)


def _loader(prefix: str) -> Callable[..., Any]:
    module, _, function = LOADERS[prefix].partition(":")
    loader: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return loader


def check_is_opened(network: object) -> None:
    """Raises ConfigError for the name of a network where the network itself is needed."""
    if isinstance(network, (str, Path)):
        raise ConfigError(f'this needs a network, not its name; give ll.open("{network}")')


def encoder_refusal(name: str) -> str:
    """The error for work that a network of others cannot do."""
    kind = "model of transformers" if name.startswith(HF_PREFIX) else "network of OpenL3"
    return (
        f"{name} is a {kind}, which gives vectors alone; "
        "this needs one that `looklisten train` made"
    )
