"""The whole job on videos it makes itself: synth, prepare, train, evaluate, probe, localize,
report.

Each finished stage leaves a record, so a demo that was stopped goes on where it was.
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
from looklisten.app.terminal import Bar, talk
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
from looklisten.model.networks import load
from looklisten.system.environment import environment
from looklisten.system.files import write_json
from looklisten.training.loop import train
from looklisten.training.metrics_log import read_metrics

STAGES = ("synth", "prepare", "train", "evaluate", "probe", "localize", "report")
SAMPLE_VIDEOS = 4
MOMENTS_PER_CLIP = 3
BEST_UNITS = 4
"""Of each side, shown in the report; the gallery has all."""


@dataclass(frozen=True)
class Plan:
    """What the demo makes and trains."""

    out: Path
    videos: int
    seconds: float
    steps: int | None
    seed: int

    @property
    def world(self) -> WorldOptions:
        return WorldOptions(
            videos=self.videos, seconds=self.seconds, seed=self.seed, test_share=0.2
        )

    @property
    def config(self) -> Config:
        changes = {"seed": self.seed} | ({"steps": self.steps} if self.steps else {})
        return Config.load("similarity").changed("train", **changes)


def run(plan: Plan, fresh: bool = False, workers: int | None = None) -> dict[str, Any]:
    """Run what is not done yet and return the contents of `results.json`. Raises ConfigError when
    `out` holds another demo.
    """
    out = plan.out
    folders = {name: out / name for name in ("videos", "shards", "run", "stages")}
    if fresh:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
    _check_same_plan(out, plan)

    def stage(name: str, work: Callable[[Bar], dict[str, Any]]) -> dict[str, Any]:
        record = folders["stages"] / f"{name}.json"
        if record.exists():
            talk.print(f"{name}: done before", style="dim")
        else:
            began = time.perf_counter()
            with Bar(name) as bar:
                result = work(bar)
            write_json(record, {"seconds": round(time.perf_counter() - began, 1), "result": result})
        done: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return done

    videos, shards, run_folder = folders["videos"], folders["shards"], folders["run"]
    done = {
        "synth": stage("synth", lambda bar: synth(videos, plan.world, workers, bar)),
        "prepare": stage(
            "prepare",
            lambda bar: prepare(
                [videos / "labels.csv"], shards, None, videos / "boxes.csv", workers, bar
            ),
        ),
        "train": stage(
            "train", lambda bar: {"step": train(shards, plan.config, run_folder, progress=bar).step}
        ),
    }
    model, data = load(run_folder), Shards(shards)
    held_out = data.select(data.held_out_mask(plan.config.train.held_out_fraction))
    done["evaluate"] = stage(
        "evaluate",
        lambda bar: evaluate(model, held_out, seed=plan.seed, progress=bar).as_dict(),
    )
    done["probe"] = stage(
        "probe",
        lambda bar: {
            k: v.as_dict()
            for k, v in probe(model, data, MOMENTS_PER_CLIP, plan.seed, progress=bar).items()
        },
    )
    done["localize"] = stage("localize", lambda bar: _best_pointing(model, held_out, bar))
    method = done["localize"]["result"]["method"]

    began = time.perf_counter()
    metrics = read_metrics(run_folder)
    results = {
        "avc": done["evaluate"]["result"],
        "probe": done["probe"]["result"],
        "localization": done["localize"]["result"],
        "throughput": {
            "prepare_x_realtime": done["prepare"]["result"]["x_realtime"],
            "train_pairs_per_second": statistics.median(
                row["pairs_per_second"] for row in metrics if "pairs_per_second" in row
            ),
            "train_data_wait": round(
                statistics.mean(row["data_wait"] for row in metrics if "data_wait" in row), 4
            ),
        },
        "seconds": {name: record["seconds"] for name, record in done.items()},
        "world": asdict(plan.world) | {"hours": round(plan.videos * plan.seconds / 3600, 3)},
        "environment": environment(),
    }
    found = [localized_middle(clip, model, method) for clip in examples(held_out)]
    gallery = units(model, held_out)
    results["units"] = gallery.as_dict()
    write_unit_page(out / "gallery.html", gallery, model)
    (out / "heatmap.png").write_bytes(
        contact_sheet([SheetColumn.of(*moment) for moment in found[:6]])
    )
    results["seconds"]["report"] = round(time.perf_counter() - began, 1)
    best = best_units(gallery, model, count=BEST_UNITS)
    write_report(
        out / "report.html", results, metrics, found, plan.config, _samples(videos, found), best
    )
    write_json(out / "results.json", results)
    talk.print(f"open {out / 'report.html'}", style="bold")
    return results


def _best_pointing(model: L3Net, held_out: Shards, bar: Bar) -> dict[str, Any]:
    """The pointing of the method whose maps point better, with what each had."""
    methods: tuple[Method, ...] = (
        ("correspondence", "similarity")
        if isinstance(model.fusion, AlignedFusion)
        else ("correspondence",)
    )
    tried = {method: pointing(model, held_out, method, progress=bar) for method in methods}
    best = max(tried.values(), key=lambda one: one.pointing)
    return best.as_dict() | {"methods": {method: one.pointing for method, one in tried.items()}}


def _check_same_plan(out: Path, plan: Plan) -> None:
    wanted = json.loads(
        json.dumps({"world": asdict(plan.world), "config": plan.config.model_dump(mode="json")})
    )
    path = out / "stages" / "plan.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != wanted:
        raise ConfigError(
            f"{out} holds a demo of other settings; add --fresh to start over, or choose another folder"
        )
    write_json(path, wanted)


def examples(held_out: Shards) -> list[Clip]:
    """One held-out clip a class, the first in which a silent thing stands by: the first, not the
    best.
    """
    clips = list(held_out)
    clips.sort(key=lambda clip: (all(box.sounding for box in clip.boxes), clip.key))
    return [
        next(clip for clip in clips if label in clip.labels)
        for label in CLASSES
        if any(label in clip.labels for clip in clips)
    ]


def localized_middle(clip: Clip, model: L3Net, method: Method) -> tuple[Moment, Localization]:
    """The moment in the middle of a clip, and its normalized maps."""
    options = LocalizeOptions(every_seconds=clip.duration_seconds, method=method)
    moment, localization = next(localize_each(clip, model, options))
    return moment, normalize_maps([localization])[0]


def _samples(videos: Path, found: Sequence[tuple[Moment, Localization]]) -> list[tuple[str, bytes]]:
    """A few of the videos themselves, with what they are called."""
    return [
        (", ".join(moment.clip.labels), (videos / moment.clip.source).read_bytes())
        for moment, _ in found[:SAMPLE_VIDEOS]
    ]
