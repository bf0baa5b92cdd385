"""What the width of a frame does to the probability that it corresponds to a sound.

    python benchmarks/frame_width.py SHARDS --checkpoint RUN [--per-clip 1]

The same frames of held-out videos as a training crop, whole, and with bars of the border's mean
color to 16:9 and 21:9. The bars show nothing, so the right probability does not depend on them.
All videos must have one size.
Each with the soft maximum divided by the positions of this frame, and by those of a training crop,
which is what the network does. The network's fusion must compare positions.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

import looklisten as ll
from looklisten.evaluation.held_out import clips_to_evaluate
from looklisten.inference.moments import Moment, moments
from looklisten.media.frames import fit_square, stack
from looklisten.model.fusions.positions import PositionFusion
from looklisten.model.l3net import L3Net

Frame = UInt8[Tensor, "height width channels"]
RATIOS = {"16:9": 16 / 9, "21:9": 21 / 9}
BATCH = 32


def with_bars(frame: Frame, ratio: float) -> Frame:
    """The frame in the middle of a wider one, between bars of its border's mean color."""
    height, width, channels = frame.shape
    wide = max(round(height * ratio), width)
    border = torch.cat([frame[:, 0], frame[:, -1]]).float().mean(0).round().to(torch.uint8)
    result = border.expand(height, wide, channels).clone()
    left = (wide - width) // 2
    result[:, left : left + width] = frame
    return result


def views(frame: Frame, crop_pixels: int) -> Iterator[tuple[str, Frame]]:
    yield "training crop", fit_square(frame, crop_pixels, "crop")
    yield "whole frame", frame
    for name, ratio in RATIOS.items():
        yield name, with_bars(frame, ratio)


@torch.inference_mode()
def log_odds(
    network: L3Net, frames: list[Frame], batch: list[Moment]
) -> dict[bool, Float[np.ndarray, "frames sounds"]]:
    """The log-odds of each frame with each sound; True: divided by the frame's own positions."""
    fusion = network.fusion
    assert isinstance(fusion, PositionFusion)
    waveforms = np.stack([moment.waveform for moment in batch])
    sound = network.listen(torch.from_numpy(waveforms))
    vision, audio = fusion.project(*fusion.features(network.look(stack(frames)), sound))
    trained_positions = fusion.positions
    scores = {}
    for is_own, positions in ((True, vision.shape[1]), (False, trained_positions)):
        fusion.positions = positions
        logits = fusion.all_pairs_logits(vision, audio)
        scores[is_own] = network.log_odds(logits).double().numpy()
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--per-clip", type=int, default=1)
    arguments = parser.parse_args()
    run = ll.open(arguments.checkpoint)
    network = run.l3net.eval()
    clips = clips_to_evaluate(run, arguments.shards)
    all_moments = [
        moment for clip in clips for moment in moments(clip, network.config, arguments.per_clip)
    ]
    own: dict[tuple[str, bool], list[float]] = {}
    others: dict[tuple[str, bool], list[float]] = {}
    # Neighbors are moments of one video, so a batch takes moments that are far apart.
    batches = -(-len(all_moments) // BATCH)
    for first in range(batches):
        batch = all_moments[first::batches]
        videos = np.array([moment.clip.video_id for moment in batch])
        is_other = videos[:, None] != videos
        all_views = [
            dict(views(moment.vision_input, network.config.crop_pixels)) for moment in batch
        ]
        for name in all_views[0]:
            frames = [each[name] for each in all_views]
            for is_own, scores in log_odds(network, frames, batch).items():
                probabilities = 1 / (1 + np.exp(-scores))
                key = (name, is_own)
                own.setdefault(key, []).extend(probabilities.diagonal().tolist())
                others.setdefault(key, []).extend(probabilities[is_other].tolist())
    print(f"{len(all_moments)} moments of {len(clips)} clips")
    print("| frame | divided by | own sound | yes | sound of another video | yes |")
    for (name, is_own), probabilities in own.items():
        divisor = "its own positions" if is_own else "those of a training crop"
        columns = [f"| {name} | {divisor}"]
        for values in (np.array(probabilities), np.array(others[name, is_own])):
            columns.append(f"{values.mean():.3f} | {(values > 0.5).mean():.1%}")
        print(" | ".join(columns) + " |")


if __name__ == "__main__":
    main()
