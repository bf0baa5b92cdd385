"""Makes sets with boxes on disk, in the layouts of their owners."""

import json
from pathlib import Path

import numpy as np
import simplejpeg

from conftest import write_wav

VGGSS_CLIPS = ("zpWuikVorYg_000032", "gEvCUcZ6w88_000030")
FLICKR_CLIPS = ("10000130166", "10007936344")
FLICKR_CORNERS = ((0, 0, 128, 128), (0, 0, 128, 256), (64, 64, 128, 128))
"""The boxes of three annotators, in pixels of 256 x 256."""


def make_frames_and_sounds(folder: Path, clips: tuple[str, ...], seconds: float = 2.0) -> Path:
    """`frames/` and `audio/`: the red of a frame and the pitch of a sound tell the clip."""
    (folder / "frames").mkdir(parents=True)
    for number, clip in enumerate(clips):
        pixels = np.full((96, 128, 3), (200 - 50 * number, 30, 30), np.uint8)
        (folder / "frames" / f"{clip}.jpg").write_bytes(simplejpeg.encode_jpeg(pixels, 95))
        samples = np.sin(np.arange(int(seconds * 16_000)) / (2 + number)) * 0.5
        write_wav(folder / "audio" / f"{clip}.wav", samples, 16_000)
    return folder


def make_vggss_annotations(file: Path) -> Path:
    """vggss.json: one box for each clip, a quarter of the image."""
    entries = [
        {"file": clip, "class": label, "bbox": [[0.25, 0.5, 0.75, 1.0]]}
        for clip, label in zip(VGGSS_CLIPS, ("elk", "drum"), strict=True)
    ]
    file.write_text(json.dumps(entries))
    return file


def make_flickr_annotations(folder: Path) -> Path:
    """The folder Annotations: the same three boxes for each clip."""
    folder.mkdir()
    boxes = []
    for corners in FLICKR_CORNERS:
        numbers = "".join(f"<c>{corner}</c>" for corner in corners)
        boxes.append(f"<annotator><bbox><name>object</name>{numbers}</bbox></annotator>")
    for clip in FLICKR_CLIPS:
        (folder / f"{clip}.xml").write_text(f"<annotation>{''.join(boxes)}</annotation>")
    return folder
