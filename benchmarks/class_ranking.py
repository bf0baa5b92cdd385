"""nDCG@30 by class in four directions: a network's own space beside plain L3 and L3 with CCA.

    python benchmarks/class_ranking.py SHARDS --network RUN [RUN ...] [--out FILE]

One moment of each held-out video of SHARDS ranks the other held-out videos by one moment each, from
picture and sound to picture and sound. A video is relevant if it has the label of the query. Rows
of each network: the space that both sides share, where it has one; pool4 of both towers, which
share no space, so across the sides their order means nothing; CCA of pool4, fitted on the training
videos without labels, in 128 dimensions. A quarter of the training videos chooses its ridge.
Intervals are over videos, or over the files that composed videos share. The table is Markdown.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cca import CCA, RIDGES
from numpy.typing import NDArray

import looklisten as ll
from looklisten.evaluation.class_ranking import ClassRanking, class_rankings_of_vectors
from looklisten.evaluation.shared_files import shared_files_of
from looklisten.inference.moments import embed_clips, embed_clips_aligned

DIMENSIONS = 128
PER_CLIP = 1
DIRECTIONS = ("picture to picture", "picture to sound", "sound to picture", "sound to sound")
"""The columns of the table, after those of "Objects that Sound"."""

Rankings = tuple[ClassRanking, ...]
FloatArray = NDArray[np.float64]


def unit(vectors: NDArray[Any]) -> FloatArray:
    """The vectors in float64, of length 1."""
    wide = vectors.astype(np.float64)
    unit_vectors: FloatArray = wide / np.linalg.norm(wide, axis=1, keepdims=True).clip(1e-12)
    return unit_vectors


def rankings(vision: FloatArray, audio: FloatArray, clips: ll.Shards) -> Rankings:
    """All directions; row i of both sides is clip number i."""
    videos = clips.video_ids.tolist()
    files = shared_files_of(clips)
    return class_rankings_of_vectors(audio, vision, videos, clips.names.tolist(), files)


def rows_of(name: str, shards: ll.Shards) -> Iterator[tuple[str, Rankings]]:
    """The rows of one network, each with its name."""
    run = ll.open(name)
    network = run.l3net
    test = run.held_out(shards)
    train = shards.select(~np.isin(shards.video_ids, test.video_ids))
    if network.fusion.aligns_vectors:
        own = embed_clips_aligned(network, test, PER_CLIP)
        yield f"{name}, its own space", rankings(unit(own.vision), unit(own.audio), test)
    features = []
    for clips in (train, test):
        pooled = embed_clips(network, clips, PER_CLIP)
        features.append((unit(pooled.vision), unit(pooled.audio)))
    (train_vision, train_audio), (test_vision, test_audio) = features
    yield f"{name}, pool4", rankings(test_vision, test_audio, test)
    ridge = best_ridge(train_vision, train_audio)
    cca = CCA(train_vision, train_audio, DIMENSIONS)
    cca.fit(ridge)
    in_space = rankings(*cca.projected(test_vision, test_audio), test)
    yield f"{name}, pool4 + CCA (ridge {ridge:g})", in_space


def best_ridge(vision: FloatArray, audio: FloatArray) -> float:
    """The ridge with which most frames are nearer to their own sound than to others; no label."""
    is_inner = np.arange(len(vision)) % 4 == 0
    cca = CCA(vision[~is_inner], audio[~is_inner], DIMENSIONS)

    def share_of_own_first(ridge: float) -> float:
        cca.fit(ridge)
        frames, sounds = cca.projected(vision[is_inner], audio[is_inner])
        cosines = frames @ sounds.T
        return float((cosines < np.diag(cosines)[:, None]).mean())

    return max(RIDGES, key=share_of_own_first)


def markdown(rows: dict[str, Rankings]) -> str:
    lines = [["nDCG@30", *DIRECTIONS], ["---"] * 5]
    first = next(iter(rows.values()))[0]
    lines.append(["chance", *[f"{first.chance:.3f}"] * 4])
    for name, found in rows.items():
        by_direction = {each.direction: each for each in found}
        cells = []
        for direction in DIRECTIONS:
            each = by_direction.get(direction)
            cells.append(
                f"{each.ndcg:.3f} [{each.ci95[0]:.3f}, {each.ci95[1]:.3f}]" if each else "–"
            )
        lines.append([name, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("--network", nargs="+", required=True)
    parser.add_argument("--out", type=Path, help="a file of JSON with all figures")
    arguments = parser.parse_args()
    shards = ll.Shards(arguments.shards)
    rows: dict[str, Rankings] = {}
    for name in arguments.network:
        rows |= dict(rows_of(name, shards))
    print(markdown(rows))
    first = next(iter(rows.values()))[0]
    print(f"\n{first.queries} queries, {first.videos} videos")
    if arguments.out:
        values = {name: [each.as_dict() for each in found] for name, found in rows.items()}
        arguments.out.write_text(json.dumps(values, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
