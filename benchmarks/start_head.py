"""Trains the head of `start` and writes it into the package.

    python benchmarks/start_head.py SHARDS [--seed 0]

SHARDS: what `looklisten prepare` made of footage with its own sound; all of it is trained on. No
label is read. `benchmarks/real.py` measures the same training on folds.
"""

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

from looklisten.config import SIDES, Config
from looklisten.data.shards import Shards
from looklisten.interop.pretrained import write_weights
from looklisten.model.l3net import L3Net
from looklisten.model.published_folder import HEAD_NAME, LIBRARY
from looklisten.training.frozen_towers.cache import open_features
from looklisten.training.frozen_towers.fit import fit_fusion

FOLDER = Path(__file__).parent.parent / "src" / "looklisten" / "heads" / "start"


def network_with_published_towers(config: Config) -> L3Net:
    """A network with the published weights in its towers and initial weights in its fusion."""
    network = L3Net(config.model)
    for side in SIDES:
        published = network.tower(side).published
        assert published is not None, f"the {side} tower of the recipe has no published weights"
        network.tower(side).load_state_dict(published.load())
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = Config.load("start").changed("train", seed=arguments.seed)
    shards = Shards(arguments.shards)
    clips = shards.select(np.ones(len(shards), dtype=bool))
    network = network_with_published_towers(config)
    features = open_features(network, shards, config.train.cached_frames_per_second)
    learner = fit_fusion(config, network, clips, features, "cpu")

    objective = learner.module.objective.state_dict()
    seconds = sum(clips.columns("duration_seconds")["duration_seconds"].to_pylist())
    made = {"trained_on": {"videos": len(set(clips.video_ids)), "hours": round(seconds / 3600, 3)}}
    description = {
        "library_name": LIBRARY,
        "looklisten_version": version("looklisten"),
        "step": config.train.steps,
        "config": learner.config.model_dump(mode="json"),
        "results": {},
        "made": made,
        "measured": {},
    }
    files = {
        HEAD_NAME: {
            f"fusion.{name}": value for name, value in learner.network.fusion.state_dict().items()
        },
        "optimizer.safetensors": {f"objective/{name}": value for name, value in objective.items()},
    }
    write_weights(FOLDER, files, description)
    sys.stdout.write(f"{FOLDER}: {(FOLDER / HEAD_NAME).stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
