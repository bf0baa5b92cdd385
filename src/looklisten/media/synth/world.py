"""The synthetic world on disk: real MP4 files with their truth beside them. Knows scenes and files, no network.

Video i depends on (seed, i) and the settings alone, so a world may be made by any number of workers, in any order,
and an interrupted one is finished by the same command.
"""

import csv
import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from looklisten.errors import ConfigError
from looklisten.media.synth.scenes import CLASSES, Scene, draw_ground, draw_scene, render_frame, render_sound
from looklisten.runtime import Progress, map_unordered, silent, sweep_aside, write_json, written_aside

SAMPLE_RATE_HZ = 48_000
BOX_INTERVAL_SECONDS = 0.2
SPLITS = ("train", "test")
X264 = {"preset": "veryfast", "crf": "23", "threads": "1", "x264-params": "mbtree=0"}
"""Without macroblock trees: at frames under some 200 pixels x264's fast path for them gave other bytes from run to run."""


@dataclass(frozen=True)
class World:
    """The settings of a world; equal settings make equal files."""

    videos: int = 360
    seed: int = 0
    seconds: float = 10.0
    side_pixels: int = 256
    frames_per_second: int = 25
    silent_share: float = 1 / 3
    test_share: float = 0.25
    videos_per_background: int = 4

    def __post_init__(self) -> None:
        if self.videos < 1 or self.seconds < 1 or not 16 <= self.side_pixels <= 4096 or not 1 <= self.frames_per_second <= 120:
            raise ConfigError("a world needs at least 1 video of at least 1 second, of 16 to 4096 pixels, at 1 to 120 frames a second")
        if not (0 <= self.silent_share <= 1 and 0 <= self.test_share < 1):
            raise ConfigError("silent_share and test_share are shares: between 0 and 1")
        if self.side_pixels % 2:
            raise ConfigError(f"side_pixels {self.side_pixels} is odd; H.264 needs an even size")

    def name(self, index: int) -> str:
        return f"{index:06d}.mp4"

    def scene(self, index: int) -> Scene:
        """The scene of video `index`: classes in turn, so that every run of twelve videos holds each once."""
        turn, place = divmod(index, len(CLASSES))
        split = SPLITS[int((turn + 1) * self.test_share + 1e-9) > int(turn * self.test_share + 1e-9)]
        rng = np.random.default_rng((self.seed, index, 2))
        backgrounds = max(self.videos // self.videos_per_background, 1)
        background = (self.seed, SPLITS.index(split), int(rng.integers(backgrounds)), 3)
        return draw_scene((self.seed, index), CLASSES[place], split, background, self.seconds, self.silent_share)


def synth(out: Path, world: World, workers: int | None = None, progress: Progress = silent) -> dict[str, object]:
    """Write `world` under `out`: `000000.mp4` …, `labels.csv`, `boxes.csv`, `onsets.csv`, `world.json`.

    `labels.csv`: path, label, split, background. `boxes.csv`: path, time (seconds), x0, y0, x1, y1 (0..1), label, sounding.
    `onsets.csv`: path, time (seconds), label. Videos that are there already are kept.
    Raises ConfigError when `out` holds a world of other settings.
    """
    out = Path(out)
    settings = out / "world.json"
    if settings.exists() and json.loads(settings.read_text()) != asdict(world):
        raise ConfigError(f"{out} holds a world of other settings (see {settings}); choose another folder or delete that one")
    out.mkdir(parents=True, exist_ok=True)
    sweep_aside(out)
    write_json(settings, asdict(world))
    _write_truth(out, world)
    missing = [i for i in range(world.videos) if not (out / world.name(i)).exists()]
    tasks = [(out, world, index) for index in missing]
    for _ in map_unordered(_make_video, tasks, workers, progress):
        pass
    return {"videos": world.videos, "made": len(missing), "hours": world.videos * world.seconds / 3600, "path": str(out)}


def _write_truth(out: Path, world: World) -> None:
    labels: list[tuple[object, ...]] = [("path", "label", "split", "background")]
    boxes: list[tuple[object, ...]] = [("path", "time", "x0", "y0", "x1", "y1", "label", "sounding")]
    onsets: list[tuple[object, ...]] = [("path", "time", "label")]
    times = np.arange(0, world.seconds, BOX_INTERVAL_SECONDS)
    for index in range(world.videos):
        scene, name = world.scene(index), world.name(index)
        labels.append((name, scene.label, scene.split, "-".join(map(str, scene.background))))
        for t in times:
            for thing in scene.things:
                corners = (f"{v:.4f}" for v in thing.box(float(t)))
                boxes.append((name, f"{t:.3f}", *corners, thing.label, int(thing.sounding)))
        onsets.extend((name, f"{onset:.4f}", scene.label) for onset, _ in scene.notes)
    for table, rows in (("labels", labels), ("boxes", boxes), ("onsets", onsets)):
        with written_aside(out / f"{table}.csv") as scratch, scratch.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def _make_video(task: tuple[Path, World, int]) -> None:
    out, world, index = task
    with written_aside(out / world.name(index)) as scratch:
        write_video(scratch, world.scene(index), world.side_pixels, world.frames_per_second)


def write_video(path: Path, scene: Scene, side_pixels: int, frames_per_second: int) -> None:
    """Encode one scene as H.264 + AAC. One thread and no date, so that the bytes are the same each time."""
    ground = draw_ground(scene, side_pixels)
    sound = render_sound(scene, SAMPLE_RATE_HZ)
    with av.open(path, "w", container_options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", frames_per_second, options=X264)
        video.width = video.height = side_pixels
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", SAMPLE_RATE_HZ, layout="mono", options={"threads": "1", "aac_coder": "fast"})
        audio.bit_rate = 128_000
        for index in range(round(scene.seconds * frames_per_second)):
            picture = av.VideoFrame.from_ndarray(render_frame(scene, ground, index / frames_per_second), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, frames_per_second)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        for start in range(0, len(sound), 1024):
            block = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = SAMPLE_RATE_HZ, start, Fraction(1, SAMPLE_RATE_HZ)
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
