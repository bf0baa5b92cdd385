"""The paper's correspondence table on labeled shards: supervised baselines, fixed features,
L3-Net, all asked the same held-out pairs.

Every network is trained with the same settings, steps and videos. Each finished stage leaves its
record, so that an interrupted table goes on.
"""

import hashlib
import json
import os
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.errors import ConfigError
from looklisten.evaluation.correspondence import Negatives, evaluate
from looklisten.evaluation.supervised import class_accuracy, direct_combination
from looklisten.model.networks import open_network
from looklisten.model.objectives.labels import LabelsObjective
from looklisten.system.devices import choose_device, to_device
from looklisten.system.environment import environment
from looklisten.system.files import write_json
from looklisten.system.progress import Progress, no_progress
from looklisten.training.lock import FolderLock
from looklisten.training.loop import train
from looklisten.training.sweep import progress_of_run

Method = Literal["direct", "pretraining-frozen", "pretraining-finetuned", "teacher", "l3"]
"""Supervised direct combination, supervised pretraining twice, a fixed vision network that sound
learns from, L3-Net itself.
"""
METHODS: tuple[Method, ...] = get_args(Method)
PAPER = {"direct": 0.65, "pretraining-frozen": 0.74, "pretraining-finetuned": 0.74, "l3": 0.74}
"""AVC accuracy on Kinetics-Sounds, as later readers quote it; whether pretrained towers were frozen
is untold, so 0.74 is of either.
"""
VALIDATION_FRACTION = 0.1
"""Of the training videos, where the settings name none: the direct combination needs videos to
choose its threshold on.
"""
KINDS: tuple[Negatives, ...] = ("any", "other-class")
NOTE = (
    "accuracy: negatives are of any other video, of the same class too, as in training without labels (noise, the same for all rows); "
    "other_class: negatives of other classes only; intervals over videos, their ends averaged over the seeds; deviation over the seeds"
)


@dataclass(frozen=True)
class BaselineRow:
    """One row: means over the seeds, all of them asked the same pairs."""

    method: Method
    accuracy: float
    ci95: tuple[float, float]
    """Over videos; its ends averaged over the seeds."""
    deviation: float | None
    """Standard deviation over the seeds; None for one seed."""
    other_class: float
    """The same with negatives of other classes only."""
    other_class_ci95: tuple[float, float]
    n_pairs: int
    n_videos: int
    by_seed: tuple[float, ...]
    paper: float | None


@dataclass(frozen=True)
class BaselineTable:
    """The rows, and what they rest on."""

    rows: tuple[BaselineRow, ...]
    seeds: tuple[int, ...]
    steps: int
    chance: float
    named: dict[str, float]
    """How often the supervised networks name a held-out frame and second right; means over the
    seeds.
    """

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"note": NOTE}


def baselines(
    shards: str | Path,
    out: str | Path,
    config: Config,
    seeds: Sequence[int] = (0, 1, 2),
    pairs: int = 4000,
    teacher: str | Path | None = None,
    device: str = "auto",
    progress: Progress = no_progress,
) -> BaselineTable:
    """Train and evaluate every row of the table for each of `seeds`, into `OUT/seed-N/`, with
    `OUT/results.json` at the end.

    `config` is that of the L3 row. `teacher`: a checkpoint whose vision tower the fixed teacher is;
    else the supervised one of the same seed. Raises ConfigError when `out` holds a table of other
    settings (other seeds may join), when another process works on one of the seeds, or labels are
    missing.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(
            "a table is made by one process; without torchrun, give each GPU its seeds, and at the end run it with all"
        )
    if not seeds:
        raise ConfigError("a table needs at least one seed")
    # Whole paths: a stage that stopped half-way is the same one from another working directory.
    out, data = Path(out).resolve(), Shards(shards)
    if not config.train.validation_fraction:
        config = config.changed("train", validation_fraction=VALIDATION_FRACTION)
    config = config.changed("train", evaluate_every=config.train.steps, probe_every=0)
    teacher = str(Path(teacher).resolve()) if teacher else ""
    _check_same_table(out, data, config, pairs, teacher)
    plans = {
        seed: _configs(
            config.changed("train", seed=seed), str(out / f"seed-{seed}" / "labels"), teacher
        )
        for seed in seeds
    }
    stages = [
        (seed, run, settings)
        for seed, configs in plans.items()
        for run, settings in configs.items()
    ]
    found: dict[int, dict[str, dict[str, Any]]] = {seed: {} for seed in plans}
    with ExitStack() as cleanup:
        # A lock for each seed, not for the table: several machines may each have some of its seeds.
        for seed in plans:
            lock = FolderLock(out / f"seed-{seed}")
            lock.acquire()
            cleanup.callback(lock.release)
        for number, (seed, run, settings) in enumerate(stages):
            told = progress_of_run(progress, number, len(stages), f"{run}, seed {seed}")
            work = partial(_row, data, out / f"seed-{seed}" / run, settings, pairs, device, told)
            found[seed][run] = _stage(out / f"seed-{seed}" / f"{run}.json", work)
    table = BaselineTable(
        rows=tuple(
            _summary(method, [found[seed][_run_of(method)] for seed in seeds]) for method in METHODS
        ),
        seeds=tuple(seeds),
        steps=config.train.steps,
        chance=0.5,
        named={
            side: statistics.mean(found[seed]["labels"]["named"][side] for seed in seeds)
            for side in ("vision", "audio")
        },
    )
    write_json(
        out / "results.json",
        table.as_dict() | {"config": config.model_dump(mode="json"), "environment": environment()},
    )
    return table


def _configs(config: Config, labels: str, teacher: str) -> dict[str, Config]:
    """The settings of each run of a seed, in their order: the supervised networks first, since
    others begin with their towers.
    """
    taken = {"vision_from": labels, "audio_from": labels}
    return {
        "labels": config.changed("train", objective="labels"),
        "pretraining-frozen": config.changed("train", freeze="towers", **taken),
        "pretraining-finetuned": config.changed("train", **taken),
        "teacher": config.changed("train", freeze="vision", vision_from=teacher or labels),
        "l3": config,
    }


def _run_of(method: Method) -> str:
    """The direct combination is made of the supervised run, the others are runs of their own."""
    return "labels" if method == "direct" else method


def _row(
    data: Shards, run: Path, config: Config, pairs: int, device: str, progress: Progress
) -> dict[str, Any]:
    """Train one network, and ask it. Raises KeyboardInterrupt when a signal ended the training,
    after it was saved.
    """
    if train(data.path, config, run, device, progress).stopped_by:
        raise KeyboardInterrupt
    saved = open_network(run)
    model, settings = to_device(saved.l3net, choose_device(device).value), saved.config.train
    held_out, scorer, result = data.held_out(saved), None, dict[str, Any]()
    heads = saved.objective().to(choose_device(device).value)
    if isinstance(heads, LabelsObjective):
        direct = direct_combination(saved, model, data, pairs)
        scorer = direct.scorer
        result["named"] = asdict(
            class_accuracy(model, heads, settings.classes, held_out, pairs // 2)
        )
        result |= {"threshold": direct.threshold, "validation_accuracy": direct.validation_accuracy}
    measured = {
        kind: evaluate(model, held_out, pairs, scorer=scorer, negatives=kind).as_dict()
        for kind in KINDS
    }
    return result | measured


def _stage(record: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives, or gave when it was done before."""
    if not record.exists():
        write_json(record, work())
    done: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return done


def _summary(method: Method, found: list[dict[str, Any]]) -> BaselineRow:
    def mean_of(kind: Negatives) -> tuple[float, tuple[float, float]]:
        low, high = (statistics.mean(one[kind]["ci95"][end] for one in found) for end in (0, 1))
        return statistics.mean(one[kind]["accuracy"] for one in found), (low, high)

    (accuracy, ci95), (other_class, other_class_ci95) = mean_of("any"), mean_of("other-class")
    by_seed = tuple(one["any"]["accuracy"] for one in found)
    return BaselineRow(
        method=method,
        accuracy=accuracy,
        ci95=ci95,
        deviation=statistics.stdev(by_seed) if len(by_seed) > 1 else None,
        other_class=other_class,
        other_class_ci95=other_class_ci95,
        n_pairs=found[0]["any"]["n_pairs"],
        n_videos=found[0]["any"]["n_videos"],
        by_seed=by_seed,
        paper=PAPER.get(method),
    )


def _check_same_table(out: Path, data: Shards, config: Config, pairs: int, teacher: str) -> None:
    """Raises ConfigError when `out` holds rows of other shards or settings; seeds may be added."""
    videos = hashlib.sha256(json.dumps(data.manifest["shards"]).encode()).hexdigest()
    wanted = {
        "config": config.changed("train", seed=0).model_dump(mode="json"),
        "pairs": pairs,
        "teacher": teacher,
        "shards": videos,
    }
    path = out / "plan.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != wanted:
        raise ConfigError(f"{out} holds a table of other shards or settings; choose another folder")
    write_json(path, wanted)
