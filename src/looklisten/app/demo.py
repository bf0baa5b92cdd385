"""The demo: make videos, prepare, train, evaluate, probe, localize, and write a report.

Each finished stage leaves a record, so a demo that was stopped continues where it was.
"""

import json
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from looklisten.app.pages.report import write_report
from looklisten.app.pages.unit_page import best_units, write_unit_page
from looklisten.app.terminal import ProgressBar, messages
from looklisten.config import Config
from looklisten.data.clips import Clip
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.drawing.figures import SheetColumn, contact_sheet
from looklisten.errors import ConfigError
from looklisten.evaluation.correspondence import evaluate
from looklisten.evaluation.linear_probe.shards import probe
from looklisten.evaluation.localization.evaluate import pointing
from looklisten.evaluation.units.naming import units
from looklisten.inference.localization.localize import localize_each
from looklisten.inference.localization.options import LocalizeOptions, Method
from looklisten.inference.localization.records import Localization, normalize_maps
from looklisten.inference.moments import Moment
from looklisten.media.synth.options import WorldOptions
from looklisten.media.synth.scenes import CLASSES
from looklisten.media.synth.synth import synth
from looklisten.model.fusions import AlignedFusion
from looklisten.model.l3net import L3Net
from looklisten.model.networks import open_network
from looklisten.system.environment import environment
from looklisten.system.files import write_json
from looklisten.training.loop import train
from looklisten.training.metrics_log import read_metrics

RECIPE = "similarity"
TEST_SHARE = 0.2
VIDEOS_IN_REPORT = 4
IMAGES_IN_SHEET = 6
MOMENTS_PER_CLIP = 3
BEST_UNITS_PER_SIDE = 4
"""Units of each side that the report has; the page of units has all of them."""


@dataclass(frozen=True)
class DemoOptions:
    """What the demo makes and trains."""

    out: Path
    videos: int
    seconds: float
    steps: int | None
    seed: int

    @property
    def world(self) -> WorldOptions:
        return WorldOptions(
            videos=self.videos, seconds=self.seconds, seed=self.seed, test_share=TEST_SHARE
        )

    @property
    def config(self) -> Config:
        changes = {"seed": self.seed}
        if self.steps:
            changes["steps"] = self.steps
        return Config.load(RECIPE).changed("train", **changes)


class _Stages:
    """Runs the stages of a demo and remembers on disk what each gave."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seconds: dict[str, float] = {}

    def run(self, name: str, work: Callable[[ProgressBar], dict[str, Any]]) -> dict[str, Any]:
        """The result of a stage: of an earlier call if there was one, else of `work`."""
        record_path = self._folder / f"{name}.json"
        if record_path.exists():
            messages.print(f"{name}: already done", style="dim")
        else:
            start_seconds = time.perf_counter()
            with ProgressBar(name) as progress:
                result = work(progress)
            seconds = round(time.perf_counter() - start_seconds, 1)
            write_json(record_path, {"seconds": seconds, "result": result})
        # Read back even a new result, so that a resumed demo and an uninterrupted one are equal.
        record = json.loads(record_path.read_text(encoding="utf-8"))
        self.seconds[name] = record["seconds"]
        result_of_record: dict[str, Any] = record["result"]
        return result_of_record


def demo(options: DemoOptions, fresh: bool = False, workers: int | None = None) -> dict[str, Any]:
    """Run the stages that are not done and return the contents of `results.json`.

    Raises ConfigError if `options.out` holds a demo with other settings, unless it is `fresh`.
    """
    out = options.out
    videos = out / "videos"
    shards_folder = out / "shards"
    run_folder = out / "run"
    stages_folder = out / "stages"
    if fresh:
        for folder in (videos, shards_folder, run_folder, stages_folder):
            shutil.rmtree(folder, ignore_errors=True)
    _check_same_options(out, options)
    config = options.config
    stages = _Stages(stages_folder)

    def make_shards(progress: ProgressBar) -> dict[str, Any]:
        table = videos / "labels.csv"
        return prepare([table], shards_folder, None, videos / "boxes.csv", workers, progress)

    def train_network(progress: ProgressBar) -> dict[str, Any]:
        return {"step": train(shards_folder, config, run_folder, progress=progress).step}

    stages.run("synth", lambda progress: synth(videos, options.world, workers, progress))
    prepared = stages.run("prepare", make_shards)
    stages.run("train", train_network)

    run = open_network(run_folder)
    model = run.l3net
    shards = Shards(shards_folder)
    held_out = run.held_out(shards)

    def evaluate_pairs(progress: ProgressBar) -> dict[str, Any]:
        return evaluate(model, held_out, seed=options.seed, progress=progress).as_dict()

    def probe_sides(progress: ProgressBar) -> dict[str, Any]:
        sides = probe(run, shards, MOMENTS_PER_CLIP, options.seed, progress=progress)
        return {side: result.as_dict() for side, result in sides.items()}

    correspondence = stages.run("evaluate", evaluate_pairs)
    probes = stages.run("probe", probe_sides)
    localization = stages.run(
        "localize", lambda progress: _best_pointing(model, held_out, progress)
    )

    start_seconds = time.perf_counter()
    metrics = read_metrics(run_folder)
    moments = []
    for clip in examples(held_out):
        moments.append(localize_middle(clip, model, localization["method"]))
    all_units = units(model, held_out)
    write_unit_page(out / "gallery.html", all_units, model)
    columns = [SheetColumn.of(moment, maps) for moment, maps in moments[:IMAGES_IN_SHEET]]
    (out / "heatmap.png").write_bytes(contact_sheet(columns))
    results = {
        "avc": correspondence,
        "probe": probes,
        "localization": localization,
        "throughput": _throughput(prepared, metrics),
        "seconds": stages.seconds | {"report": round(time.perf_counter() - start_seconds, 1)},
        "world": asdict(options.world)
        | {"hours": round(options.videos * options.seconds / 3600, 3)},
        "environment": environment(),
        "units": all_units.as_dict(),
    }
    write_report(
        out / "report.html",
        results,
        metrics,
        moments,
        config,
        _sample_videos(videos, moments),
        best_units(all_units, model, count=BEST_UNITS_PER_SIDE),
    )
    write_json(out / "results.json", results)
    messages.print(f"open {out / 'report.html'}", style="bold")
    return results


def _throughput(prepared: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How fast videos were prepared and trained on."""
    training_rates = [row["pairs_per_second"] for row in metrics if "pairs_per_second" in row]
    waiting_shares = [row["data_wait"] for row in metrics if "data_wait" in row]
    return {
        "prepare_x_realtime": prepared["x_realtime"],
        "train_pairs_per_second": statistics.median(training_rates),
        "train_data_wait": round(statistics.mean(waiting_shares), 4),
    }


def _best_pointing(model: L3Net, held_out: Shards, progress: ProgressBar) -> dict[str, Any]:
    """The pointing accuracy of the method that points best, and the accuracy of each method."""
    methods: tuple[Method, ...] = ("correspondence",)
    if isinstance(model.fusion, AlignedFusion):
        methods = ("correspondence", "similarity")
    results = {}
    for method in methods:
        results[method] = pointing(model, held_out, method, progress=progress)
    best = max(results.values(), key=lambda result: result.pointing)
    accuracies = {method: result.pointing for method, result in results.items()}
    return best.as_dict() | {"methods": accuracies}


def _check_same_options(out: Path, options: DemoOptions) -> None:
    """Raise ConfigError if the folder holds a demo with other settings."""
    settings = {"world": asdict(options.world), "config": options.config.model_dump(mode="json")}
    # Through JSON, because tuples come back from the file as lists.
    settings = json.loads(json.dumps(settings))
    path = out / "stages" / "plan.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise ConfigError(
            f"{out} holds a demo with other settings; add --fresh to start over, or choose another "
            "folder"
        )
    write_json(path, settings)


def examples(held_out: Shards) -> list[Clip]:
    """One held-out clip per class: the first one with a silent object, if there is any."""
    clips = list(held_out)
    # By name, not by how well the network does on them.
    clips.sort(key=lambda clip: (all(box.sounding for box in clip.boxes), clip.key))
    first_of_class: dict[str, Clip] = {}
    for clip in clips:
        for label in clip.labels:
            first_of_class.setdefault(label, clip)
    return [first_of_class[label] for label in CLASSES if label in first_of_class]


def localize_middle(clip: Clip, model: L3Net, method: Method) -> tuple[Moment, Localization]:
    """The moment in the middle of a clip, and its normalized maps."""
    options = LocalizeOptions(every_seconds=clip.duration_seconds, method=method)
    moment, localization = next(localize_each(clip, model, options))
    return moment, normalize_maps([localization])[0]


def _sample_videos(
    videos: Path, moments: Sequence[tuple[Moment, Localization]]
) -> list[tuple[str, bytes]]:
    """Labels and bytes of the videos that the report plays."""
    samples = []
    for moment, _ in moments[:VIDEOS_IN_REPORT]:
        clip = moment.clip
        samples.append((", ".join(clip.labels), (videos / clip.source).read_bytes()))
    return samples
