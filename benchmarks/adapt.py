"""How much `adapt` gains on one source of real clips, with a head that never saw that source.

    python benchmarks/adapt.py FOLDER --out OUT --source SOURCE [SOURCE ...] [--seed 0]

FOLDER has `clips.csv` (path, video_id, source) and the videos. For each source the head of `start`
is trained, without a label, on the clips of all other sources. Then the videos of the source are
split into five folds. `looklisten.adapt` fits the head to four of them, and the fifth is measured
before and after. A gain is that after training, also where `adapt` then keeps the network as it
was: the fold decides that too, so keeping the better one would flatter the figure. Gains are pooled
over the folds, weighted by their videos, with 95 % intervals over videos.
"""

import argparse
import csv
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from real import FOLDS, make_folds

import looklisten as ll
from looklisten.config import Config
from looklisten.model.checkpoint import read_checkpoint, save_calibration, save_checkpoint
from looklisten.training.frozen_towers.cache import open_features
from looklisten.training.frozen_towers.calibrate import cross_fitted_calibration
from looklisten.training.frozen_towers.fit import fit_fusion
from looklisten.training.frozen_towers.options import AdaptOptions


@dataclass(frozen=True)
class SourceGain:
    """The figures of one source, pooled over its folds."""

    source: str
    videos: int
    before: float
    after: float
    gain: float
    gain_ci95: tuple[float, float]
    kept: int
    """In how many folds `adapt` found the network better and kept it."""
    seconds: float
    """Mean of a fold, with computing the features."""


def head_without(source: str, clips: ll.Shards, sources: Sequence[str], out: Path) -> Path:
    """Train the head of `start` on the clips of the other sources; return its checkpoint."""
    config = Config.load("start")
    network = ll.load("untrained:start")
    features = open_features(network, clips.folder, config.train.cached_frames_per_second)
    others = clips.select(np.array([name != source for name in sources]))
    learner = fit_fusion(config, network, others, features, "cpu")
    objective = learner.module.objective.state_dict()
    shutil.rmtree(out, ignore_errors=True)
    checkpoint = save_checkpoint(
        out / "checkpoints",
        config.train.steps,
        learner.config,
        learner.network.state_dict(),
        {f"objective/{name}": value for name, value in objective.items()},
        {},
        learner.computation(),
    )
    calibration = cross_fitted_calibration(config, network, others, features, "cpu")
    save_calibration(read_checkpoint(checkpoint), calibration)
    return checkpoint


def prepared_fold(
    folder: Path, rows: Sequence[dict[str, str]], tested: set[str], out: Path
) -> Path:
    """Shards of one source whose split is the fold: videos of `tested` are held out."""
    table = out.with_suffix(".csv")
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "video_id", "split"])
        for row in rows:
            split = "test" if row["video_id"] in tested else "train"
            writer.writerow([(folder / row["path"]).resolve(), row["video_id"], split])
    ll.prepare([table], out)
    return out


def gain_on(
    source: str, folder: Path, rows: Sequence[dict[str, str]], head: Path, out: Path, seed: int
) -> SourceGain:
    """Adapt to four folds of a source and measure the fifth, five times."""
    video_ids = np.array([row["video_id"] for row in rows])
    folds = make_folds(video_ids, np.array([row["kind"] for row in rows]))
    results = []
    for number, fold in enumerate(folds):
        tested = set(video_ids[fold.test].tolist())
        shards = prepared_fold(folder, rows, tested, out / f"fold{number}")
        run = out / f"adapted{number}"
        shutil.rmtree(run, ignore_errors=True)
        results.append(ll.adapt(shards, head, run, AdaptOptions(seed=seed)))
        print(json.dumps(results[-1].as_dict(), default=str), flush=True)
    weights = np.array([result.measured_videos for result in results], dtype=float)
    weights /= weights.sum()
    # The folds share no video, so the variances of their gains add.
    reaches = np.array([result.gain_ci95[1] - result.gain for result in results])
    reach = math.sqrt(float(((weights * reaches) ** 2).sum()))
    gain = float(weights @ np.array([result.gain for result in results]))
    return SourceGain(
        source,
        sum(result.measured_videos for result in results),
        float(weights @ np.array([result.one_of_two_before for result in results])),
        float(weights @ np.array([result.one_of_two_after for result in results])),
        gain,
        (gain - reach, gain + reach),
        sum(result.is_better for result in results),
        sum(result.seconds for result in results) / FOLDS,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with (arguments.folder / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    source_of_path = {row["path"]: row["source"] for row in rows}
    shards = arguments.out / "shards"
    if not (shards / "index.json").is_file():
        ll.prepare([arguments.folder / "clips.csv"], shards)
    clips = ll.Shards(shards).split("all", 0.1)
    sources = [source_of_path[path] for path in clips.columns("source")["source"].to_pylist()]
    for source in arguments.source:
        of_source = [row for row in rows if row["source"] == source]
        out = arguments.out / source.replace("/", "-")
        out.mkdir(parents=True, exist_ok=True)
        head = head_without(source, clips, sources, out / "head")
        result = gain_on(source, arguments.folder, of_source, head, out, arguments.seed)
        low, high = result.gain_ci95
        print(
            f"| {source} | {result.videos} | {100 * result.before:.1f} | {100 * result.after:.1f} "
            f"| {100 * result.gain:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] "
            f"| {result.kept} of {FOLDS} | {result.seconds:.0f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
