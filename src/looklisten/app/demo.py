"""The demo: make videos, prepare, train, evaluate, probe, localize, search, and write a report.

Each finished stage leaves a record, so a demo that was stopped continues where it was.
"""

import json
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from looklisten.app.demo_time import measure_demo_time
from looklisten.app.pages.report import FramesOfSound, write_report
from looklisten.app.pages.unit_page import best_units, write_unit_page
from looklisten.app.terminal import ProgressBar, messages
from looklisten.config import Config
from looklisten.data.clips import Clip
from looklisten.data.prepare import prepare
from looklisten.data.shards import Shards
from looklisten.drawing.figures import SheetColumn, contact_sheet
from looklisten.errors import ConfigError
from looklisten.evaluation.clip_retrieval import retrieval_of_clips
from looklisten.evaluation.correspondence import evaluate
from looklisten.evaluation.linear_probe.shards import probe
from looklisten.evaluation.localization.evaluate import pointing_of_each
from looklisten.evaluation.units.naming import units
from looklisten.inference.localization.localize import localize_each
from looklisten.inference.localization.methods import default_method
from looklisten.inference.localization.options import LocalizeOptions, Method
from looklisten.inference.localization.records import Localization, normalize_maps
from looklisten.inference.moments import Moment, nth_moment
from looklisten.media.synth.options import WorldOptions
from looklisten.media.synth.scenes import CLASSES
from looklisten.media.synth.synth import synth
from looklisten.model.l3net import L3Net
from looklisten.model.networks import Run, open_network
from looklisten.option_checks import check_at_least
from looklisten.system.environment import environment
from looklisten.system.files import write_json
from looklisten.training.loop import train
from looklisten.training.meter import PAIRS_PER_VIDEO
from looklisten.training.metrics_log import read_metrics

# One network for all stages. In the trials it needed the fewest steps (LOG.md, 2026-11-28).
RECIPE = "general"
TEST_SHARE = 0.2
# Training reads five frames a second and sees 112 pixels of them. Larger videos with more frames
# cost twice the time to make (benchmarks/RESULTS.md).
VIDEO_SIDE_PIXELS = 160
VIDEO_FRAMES_PER_SECOND = 10
VIDEOS_IN_REPORT = 4
IMAGES_IN_SHEET = 6
SEARCHES_IN_REPORT = 6
PROBED_MOMENTS_PER_CLIP = 2
SEARCHED_MOMENTS_PER_CLIP = 3
BEST_UNITS_PER_SIDE = 4
"""Units of each side that the report has; the page of units has all of them."""


@dataclass(frozen=True)
class DemoOptions:
    """What the demo makes and trains."""

    out: Path
    videos: int
    seconds: float
    steps: int
    seed: int

    def __post_init__(self) -> None:
        check_at_least(1, steps=self.steps)

    @property
    def world(self) -> WorldOptions:
        return WorldOptions(
            videos=self.videos,
            seconds=self.seconds,
            seed=self.seed,
            side_pixels=VIDEO_SIDE_PIXELS,
            frames_per_second=VIDEO_FRAMES_PER_SECOND,
            test_share=TEST_SHARE,
        )

    @property
    def config(self) -> Config:
        return Config.load(RECIPE).changed("train", seed=self.seed, steps=self.steps)


class _Stages:
    """Runs the stages of a demo and remembers on disk what each gave."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seconds: dict[str, float] = {}

    def is_done(self, name: str) -> bool:
        return (self._folder / f"{name}.json").exists()

    def run(self, name: str, work: Callable[[ProgressBar], dict[str, Any]]) -> dict[str, Any]:
        """The result of a stage: of an earlier call if there was one, else of `work`."""
        record_path = self._folder / f"{name}.json"
        if self.is_done(name):
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


class _Demo:
    """The folders of a demo, and the work of each stage. A stage returns what is recorded of it."""

    def __init__(self, options: DemoOptions, workers: int | None) -> None:
        self.options = options
        self.workers = workers
        self.videos = options.out / "videos"
        self.shards = options.out / "shards"
        self.run_folder = options.out / "run"
        self.stages = options.out / "stages"

    def remove(self) -> None:
        """Remove what an earlier demo made, and no other file of the folder."""
        for folder in (self.videos, self.shards, self.run_folder, self.stages):
            shutil.rmtree(folder, ignore_errors=True)

    @cached_property
    def run(self) -> Run:
        return open_network(self.run_folder)

    @cached_property
    def held_out(self) -> Shards:
        return self.run.held_out(Shards(self.shards))

    def make_videos(self, progress: ProgressBar) -> dict[str, Any]:
        return synth(self.videos, self.options.world, self.workers, progress)

    def make_shards(self, progress: ProgressBar) -> dict[str, Any]:
        table = self.videos / "labels.csv"
        boxes = self.videos / "boxes.csv"
        return prepare([table], self.shards, None, boxes, self.workers, progress)

    def train(self, progress: ProgressBar) -> dict[str, Any]:
        result = train(self.shards, self.options.config, self.run_folder, progress=progress)
        if result.stopped_by:
            # No record is written, so the next call resumes the training.
            raise KeyboardInterrupt
        return {"step": result.step}

    def evaluate(self, progress: ProgressBar) -> dict[str, Any]:
        seed = self.options.seed
        return evaluate(self.run, self.held_out, seed=seed, progress=progress).as_dict()

    def probe(self, progress: ProgressBar) -> dict[str, Any]:
        seed = self.options.seed
        sides = probe(self.run, self.shards, PROBED_MOMENTS_PER_CLIP, seed, progress=progress)
        return {side: result.as_dict() for side, result in sides.items()}

    def localize(self, progress: ProgressBar) -> dict[str, Any]:
        method = default_method(self.run.l3net)
        (result,) = pointing_of_each(self.run, self.held_out, [method], progress=progress)
        return result.as_dict()

    def search(self, progress: ProgressBar) -> dict[str, Any]:
        """How well sounds find frames, and frames sounds, and what some sounds find."""
        numbers = examples(self.held_out)[:SEARCHES_IN_REPORT]
        result = retrieval_of_clips(
            self.run, self.held_out, SEARCHED_MOMENTS_PER_CLIP, numbers, progress=progress
        )
        return result.as_dict()


def demo(options: DemoOptions, fresh: bool = False, workers: int | None = None) -> dict[str, Any]:
    """Run the stages that are not done and return the contents of `results.json`.

    Raises ConfigError if `options.out` holds a demo with other settings, unless it is `fresh`.
    """
    work = _Demo(options, workers)
    if fresh:
        work.remove()
    _check_same_options(options)
    stages = _Stages(work.stages)
    if not stages.is_done("prepare"):
        _say_expected_time(work)
    # The order matters: `prepare` and `train` read what the stage before wrote, and all later
    # stages read the shards and the run.
    stages.run("synth", work.make_videos)
    prepared = stages.run("prepare", work.make_shards)
    if not stages.is_done("train"):
        # Again, on the batches that training will read, because training takes most of the time.
        _say_expected_time(work, Shards(work.shards))
    stages.run("train", work.train)
    metrics = read_metrics(work.run_folder)
    hours = round(options.videos * options.seconds / 3600, 3)
    results = {
        "avc": stages.run("evaluate", work.evaluate),
        "probe": stages.run("probe", work.probe),
        "localization": stages.run("localize", work.localize),
        "search": stages.run("search", work.search),
        "throughput": _throughput(prepared, metrics),
        "seconds": stages.seconds,
        "world": asdict(options.world) | {"hours": hours},
        "environment": environment(),
    }
    _write_pages(work, results, metrics)
    write_json(options.out / "results.json", results)
    messages.print(f"open {options.out / 'report.html'}", style="bold")
    return results


def _say_expected_time(work: _Demo, shards: Shards | None = None) -> None:
    expected = measure_demo_time(work.options.world, work.options.config, work.workers, shards)
    messages.print(expected.sentence(), soft_wrap=True)


def _write_pages(work: _Demo, results: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> None:
    """Write the report, the page of units and a sheet of heat maps; add to `results`."""
    start_seconds = time.perf_counter()
    out = work.options.out
    model = work.run.l3net
    method = results["localization"]["method"]
    clips = [work.held_out[number] for number in examples(work.held_out)]
    moments = [localize_middle(clip, model, method) for clip in clips]
    all_units = units(work.run, work.held_out)
    results["units"] = all_units.as_dict()
    write_unit_page(out / "gallery.html", all_units, model)
    columns = [SheetColumn.of(moment, maps) for moment, maps in moments[:IMAGES_IN_SHEET]]
    (out / "heatmap.png").write_bytes(contact_sheet(columns))
    # The report shows the seconds of all stages, its own included.
    results["seconds"]["report"] = round(time.perf_counter() - start_seconds, 1)
    write_report(
        out / "report.html",
        results,
        metrics,
        moments,
        _frames_of_sounds(work, results["search"]["searches"], moments),
        work.options.config,
        _sample_videos(work.videos, moments),
        best_units(all_units, model, count=BEST_UNITS_PER_SIDE),
    )


def _frames_of_sounds(
    work: _Demo,
    searches: Sequence[dict[str, Any]],
    moments: Sequence[tuple[Moment, Localization]],
) -> list[FramesOfSound]:
    """The frames that each search found. Search i began with the sound of `moments[i]`."""
    # There may be more moments than searches.
    config = work.run.l3net.config
    results = []
    for search, (moment, sound) in zip(searches, moments, strict=False):
        frames = []
        for hit in search["frames"]:
            clip = work.held_out[hit["clip"]]
            frame = nth_moment(clip, config, SEARCHED_MOMENTS_PER_CLIP, hit["moment"])
            frames.append((frame, hit["similarity"]))
        results.append(FramesOfSound(moment.clip, sound, frames))
    return results


def _throughput(prepared: dict[str, Any], metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The rates of `prepare` and of the training, and how much of it waited for data."""
    training_rates = [row["videos_per_second"] for row in metrics if "videos_per_second" in row]
    videos_per_second = statistics.median(training_rates)
    waiting_shares = [row["data_wait"] for row in metrics if "data_wait" in row]
    return {
        "prepare_x_realtime": prepared["x_realtime"],
        "train_videos_per_second": videos_per_second,
        "train_pairs_per_second": PAIRS_PER_VIDEO * videos_per_second,
        "train_data_wait": round(statistics.mean(waiting_shares), 4),
    }


def _check_same_options(options: DemoOptions) -> None:
    """Record the settings in the folder. Raises ConfigError if it holds a demo with others."""
    # Through JSON, because tuples come back from the file as lists.
    world = json.loads(json.dumps(asdict(options.world)))
    settings = {"world": world, "config": options.config.model_dump(mode="json")}
    path = options.out / "stages" / "plan.json"
    differences: list[str] = []
    if path.exists():
        saved = json.loads(path.read_text(encoding="utf-8"))
        # A plan of an older version lacks settings, which then have their defaults.
        saved_config = Config.of(saved["config"], str(path))
        differences += saved_config.differences(options.config).values()
        for name, value in world.items():
            if saved["world"].get(name) != value:
                differences.append(f"{name} was {saved['world'].get(name)} and is {value}")
    if differences:
        raise ConfigError(
            f"{options.out} holds a demo with other settings ({'; '.join(differences)}); "
            "add --fresh to start over, or choose another folder"
        )
    write_json(path, settings)


def examples(held_out: Shards) -> list[int]:
    """The number of one clip per class: the first one with a silent object, if there is any."""
    # Chosen by the names of clips, never by how well the network does on them.
    order = []
    for number, clip in enumerate(held_out):
        order.append((all(box.sounding for box in clip.boxes), clip.key, number, clip.labels))
    first_of_class: dict[str, int] = {}
    # The demo's videos have one label each; a clip counts for all that it has.
    for _, _, number, labels in sorted(order):
        for label in labels:
            first_of_class.setdefault(label, number)
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
