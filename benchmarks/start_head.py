"""Trains the head of `start` and writes it into the package.

    python benchmarks/start_head.py SHARDS [--seed 0]

SHARDS: what `looklisten prepare` made of footage with its own sound; all of it is trained on. No
label is read. `benchmarks/real.py` measures the same training on folds.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from looklisten.config import Config
from looklisten.data.shards import Shards
from looklisten.model.checkpoint import read_checkpoint, save_calibration, save_checkpoint
from looklisten.model.networks import open_network
from looklisten.model.shipped import VIDEOS_FILE
from looklisten.training.frozen_towers.cache import open_features
from looklisten.training.frozen_towers.calibrate import cross_fitted_calibration
from looklisten.training.frozen_towers.fit import fit_fusion

FOLDER = Path(__file__).parent.parent / "src" / "looklisten" / "heads" / "start"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = Config.load("start").changed("train", seed=arguments.seed)
    shards = Shards(arguments.shards)
    clips = shards.select(np.ones(len(shards), dtype=bool))
    network = open_network("untrained:start").l3net
    features = open_features(network, shards, config.train.cached_frames_per_second)
    learner = fit_fusion(config, network, clips, features, "cpu")

    # Half precision, because the file is part of the package. Loading makes float32 of it.
    weights = {
        name: tensor.half() if name.startswith("fusion.") else tensor
        for name, tensor in learner.network.state_dict().items()
    }
    objective = learner.module.objective.state_dict()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = save_checkpoint(
            Path(scratch),
            config.train.steps,
            learner.config,
            weights,
            # Without the averages of Adam, which only a resumed training needs.
            {f"objective/{name}": value for name, value in objective.items()},
            {},
            learner.computation(),
        )
        calibration = cross_fitted_calibration(config, network, clips, features, "cpu")
        save_calibration(read_checkpoint(checkpoint), calibration)
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.copytree(checkpoint, FOLDER)
    videos = sorted(set(clips.video_ids.tolist()))
    (FOLDER / VIDEOS_FILE).write_text("".join(f"{video}\n" for video in videos), encoding="utf-8")
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    sys.stdout.write(
        f"{FOLDER}: {size / 1e6:.2f} MB, {len(set(clips.video_ids))} videos, "
        f"{config.train.steps} steps\n"
    )


if __name__ == "__main__":
    main()
