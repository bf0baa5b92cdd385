"""The paper's correspondence table on labeled shards: all methods on the same held-out pairs.

The methods are supervised baselines, fixed features, and L3-Net. Every network is trained with the
same settings, steps and videos. Each finished stage writes a record, so that an interrupted table
can be resumed.
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
from looklisten.evaluation.correspondence import DEFAULT_PAIRS, Negatives, evaluate
from looklisten.evaluation.supervised import class_accuracy, direct_combination
from looklisten.model.networks import open_network
from looklisten.system.devices import choose_device, to_device
from looklisten.system.environment import environment
from looklisten.system.files import write_json
from looklisten.system.progress import Progress, no_progress
from looklisten.training.held_out import EVALUATED_PAIRS
from looklisten.training.lock import training_lock
from looklisten.training.loop import train
from looklisten.training.sweep import progress_of_run

BaselineMethod = Literal["direct", "pretraining-frozen", "pretraining-finetuned", "teacher", "l3"]
"""A row of the table.

Supervised direct combination, supervised pretraining twice, a fixed vision network that sound
learns from, and L3-Net.
"""
METHODS: tuple[BaselineMethod, ...] = get_args(BaselineMethod)
PAPER_ACCURACIES = {
    "direct": 0.65,
    "pretraining-frozen": 0.74,
    "pretraining-finetuned": 0.74,
    "l3": 0.74,
}
"""AVC accuracy on Kinetics-Sounds, as later papers quote it.

Whether pretrained towers were frozen is not stated, so 0.74 is of either.
"""
VALIDATION_FRACTION = 0.1
"""Of the training videos, where the settings name none.

The direct combination needs videos to choose its threshold with.
"""
MEASURED_NEGATIVES: tuple[Negatives, ...] = ("any", "other-class")
NOTE = (
    "accuracy: negatives are of any other video, of the same class too, as in training without "
    "labels (noise, the same for all rows); other_class: negatives of other classes only; "
    "ends of intervals averaged over the seeds; deviation over the seeds"
)

_Record = dict[str, Any]
"""The results of one run, as its JSON file has them."""


@dataclass(frozen=True)
class BaselineRow:
    """One row: means over the seeds, all of them measured on the same pairs."""

    method: BaselineMethod
    accuracy: float
    ci95: tuple[float, float]
    """Its ends are averaged over the seeds."""
    deviation: float | None
    """Standard deviation over the seeds; None for one seed."""
    other_class: float
    """The accuracy with negatives of other classes only."""
    other_class_ci95: tuple[float, float]
    n_pairs: int
    n_videos: int
    by_seed: tuple[float, ...]
    paper: float | None


@dataclass(frozen=True)
class BaselineTable:
    """The rows, and the settings that they share."""

    rows: tuple[BaselineRow, ...]
    seeds: tuple[int, ...]
    steps: int
    chance: float
    named: dict[str, float]
    """Accuracy of the supervised networks on single held-out frames and single held-out seconds.

    Means over the seeds.
    """
    interval_over: str
    """What the intervals take as independent: videos, or the files that videos were composed of."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"note": NOTE}


def baselines(
    shards: str | Path,
    out: str | Path,
    config: Config,
    seeds: Sequence[int] = (0, 1, 2),
    pairs: int = DEFAULT_PAIRS,
    teacher: str | Path | None = None,
    device: str = "auto",
    progress: Progress = no_progress,
    evaluated_pairs: int = EVALUATED_PAIRS,
) -> BaselineTable:
    """Train and evaluate every row of the table for each of `seeds`, into `OUT/seed-N/`.

    At the end it writes `OUT/results.json`. `config` is that of the L3 row. `teacher` is the
    checkpoint whose vision tower is the fixed teacher; by default it is the supervised one of the
    same seed.

    Raises ConfigError when `out` holds a table of other settings (other seeds may be added), when
    another process works on one of the seeds, or when labels are missing.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(
            "a table is made by one process; run it without torchrun: give each GPU its own "
            "seeds, and at the end run it once with all seeds"
        )
    if not seeds:
        raise ConfigError("a table needs at least one seed")
    # Absolute paths, so that a stage can be resumed from another working directory.
    out = Path(out).resolve()
    teacher = str(Path(teacher).resolve()) if teacher else ""
    data = Shards(shards)
    if not config.train.validation_fraction:
        config = config.changed("train", validation_fraction=VALIDATION_FRACTION)
    # Each run is measured once, at its end, by the table itself.
    config = config.changed("train", evaluate_every=config.train.steps, probe_every=0)
    _check_same_table(out, data, config, pairs, teacher)

    records: dict[int, dict[str, _Record]] = {seed: {} for seed in seeds}
    with ExitStack() as cleanup:
        # A lock for each seed, not for the table: several machines may share its seeds.
        for seed in records:
            lock = training_lock(_seed_folder(out, seed))
            lock.acquire()
            cleanup.callback(lock.release)
        stages = _stages(out, config, list(records), teacher)
        for number, (seed, run, run_config) in enumerate(stages):
            folder = _seed_folder(out, seed)
            own_progress = progress_of_run(progress, number, len(stages), f"{run}, seed {seed}")
            measure = partial(
                _train_and_measure,
                data,
                folder / run,
                run_config,
                pairs,
                device,
                own_progress,
                evaluated_pairs,
            )
            records[seed][run] = _read_or_make(folder / f"{run}.json", measure)
    table = _table([records[seed] for seed in seeds], tuple(seeds), config.train.steps)
    metadata = {"config": config.model_dump(mode="json"), "environment": environment()}
    write_json(out / "results.json", table.as_dict() | metadata)
    return table


def _seed_folder(out: Path, seed: int) -> Path:
    return out / f"seed-{seed}"


def _stages(
    out: Path, config: Config, seeds: Sequence[int], teacher: str
) -> list[tuple[int, str, Config]]:
    """Seed, name and config of each run, in the order in which they are trained."""
    stages = []
    for seed in seeds:
        supervised_run = str(_seed_folder(out, seed) / "labels")
        seed_config = config.changed("train", seed=seed)
        for run, run_config in _run_configs(seed_config, supervised_run, teacher).items():
            stages.append((seed, run, run_config))
    return stages


def _run_configs(config: Config, supervised_run: str, teacher: str) -> dict[str, Config]:
    """The config of each run of a seed. The supervised run is first: others use its towers."""
    towers = {"vision_from": supervised_run, "audio_from": supervised_run}
    teacher_run = teacher or supervised_run
    return {
        # An empty sound has no class.
        "labels": config.changed("train", objective="labels", empty_sound_share=0.0),
        # Random crops at every step, as the other rows have.
        "pretraining-frozen": config.changed(
            "train", freeze="towers", cached_frames_per_second=0, **towers
        ),
        "pretraining-finetuned": config.changed("train", **towers),
        "teacher": config.changed("train", freeze="vision", vision_from=teacher_run),
        "l3": config,
    }


def _run_of(method: BaselineMethod) -> str:
    """The run that a row is measured on."""
    # The direct combination is computed from the supervised run; the others have runs of their own.
    return "labels" if method == "direct" else method


def _train_and_measure(
    data: Shards,
    run: Path,
    config: Config,
    pairs: int,
    device: str,
    progress: Progress,
    evaluated_pairs: int,
) -> _Record:
    """Train one network, and measure it.

    Raises KeyboardInterrupt when a signal ended the training, after it was saved.
    """
    result = train(data.path, config, run, device, progress, evaluated_pairs=evaluated_pairs)
    # The record must come from all steps, so a run that was stopped early has none.
    if result.stopped_by:
        raise KeyboardInterrupt
    trained = open_network(run)
    settings = trained.config.train
    model = to_device(trained.l3net, choose_device(device).value)
    objective = trained.objective().to(choose_device(device).value)
    held_out = data.held_out(trained)
    scorer = None
    record = _Record()
    if objective.uses_labels:
        direct = direct_combination(trained, model, data, pairs)
        scorer = direct.scorer
        accuracy = class_accuracy(
            model, objective.class_scores, settings.classes, held_out, pairs // 2
        )
        record["named"] = asdict(accuracy)
        record["threshold"] = direct.threshold
        record["validation_accuracy"] = direct.validation_accuracy
    for negatives in MEASURED_NEGATIVES:
        measured = evaluate(model, held_out, pairs, scorer=scorer, negatives=negatives)
        record[negatives] = measured.as_dict()
    return record


def _read_or_make(path: Path, make: Callable[[], _Record]) -> _Record:
    """The record at `path`; made by `make` where there is none yet."""
    if not path.exists():
        write_json(path, make())
    # Read back also when it is new, so that both ways give the same types.
    record: _Record = json.loads(path.read_text(encoding="utf-8"))
    return record


def _table(
    records: Sequence[dict[str, _Record]], seeds: tuple[int, ...], steps: int
) -> BaselineTable:
    """The table of the records of each seed, by run."""
    rows = []
    for method in METHODS:
        rows.append(row_over_seeds(method, [of_seed[_run_of(method)] for of_seed in records]))
    named = {}
    for side in ("vision", "audio"):
        named[side] = statistics.mean(of_seed["labels"]["named"][side] for of_seed in records)
    # A run of an older version does not say it.
    interval_over = records[0]["l3"]["any"].get("interval_over", "videos")
    return BaselineTable(
        rows=tuple(rows),
        seeds=seeds,
        steps=steps,
        chance=0.5,
        named=named,
        interval_over=interval_over,
    )


def row_over_seeds(method: BaselineMethod, records: Sequence[_Record]) -> BaselineRow:
    """The row of a method, from the records of its seeds."""
    accuracy, ci95 = _mean_accuracy(records, "any")
    other_class, other_class_ci95 = _mean_accuracy(records, "other-class")
    by_seed = tuple(record["any"]["accuracy"] for record in records)
    return BaselineRow(
        method=method,
        accuracy=accuracy,
        ci95=ci95,
        deviation=statistics.stdev(by_seed) if len(by_seed) > 1 else None,
        other_class=other_class,
        other_class_ci95=other_class_ci95,
        n_pairs=records[0]["any"]["n_pairs"],
        n_videos=records[0]["any"]["n_videos"],
        by_seed=by_seed,
        paper=PAPER_ACCURACIES.get(method),
    )


def _mean_accuracy(
    records: Sequence[_Record], negatives: Negatives
) -> tuple[float, tuple[float, float]]:
    """Accuracy and interval, averaged over the seeds."""
    measured = [record[negatives] for record in records]
    low = statistics.mean(values["ci95"][0] for values in measured)
    high = statistics.mean(values["ci95"][1] for values in measured)
    return statistics.mean(values["accuracy"] for values in measured), (low, high)


def _check_same_table(out: Path, data: Shards, config: Config, pairs: int, teacher: str) -> None:
    """Raises ConfigError when `out` holds rows of other shards or settings; seeds may be added."""
    shards_digest = hashlib.sha256(json.dumps(data.manifest["shards"]).encode()).hexdigest()
    # The seed is left out: rows of other seeds may be added to a table.
    plan = {
        "config": config.changed("train", seed=0).model_dump(mode="json"),
        "pairs": pairs,
        "teacher": teacher,
        "shards": shards_digest,
    }
    path = out / "plan.json"
    saved = plan
    if path.exists():
        saved = json.loads(path.read_text(encoding="utf-8"))
        # A plan of an older version lacks settings, which then have their defaults.
        saved["config"] = Config.of(saved["config"], str(path)).model_dump(mode="json")
    if saved != plan:
        raise ConfigError(f"{out} holds a table of other shards or settings; choose another folder")
    write_json(path, plan)
