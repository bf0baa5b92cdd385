"""The synthetic world on disk: real MP4 files with their truth beside them. Knows scenes and files,
no network.

Video i depends on (seed, i) and the settings alone, so a world may be made by any number of
workers, in any order, and an interrupted one is finished by the same command.
"""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from looklisten.errors import ConfigError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.synth.film import Film
from looklisten.media.synth.scenes import (
    CLASSES,
    Scene,
    draw_ground,
    draw_scene,
    render_frame,
    render_sound,
)
from looklisten.media.synth.wild import names
from looklisten.system.files import atomic_write, remove_abandoned_scratch, write_json
from looklisten.system.processes import map_unordered
from looklisten.system.progress import Progress, no_progress

BOX_INTERVAL_SECONDS = 0.2
SPLITS = ("train", "test")
Tables = dict[str, list[tuple[object, ...]]]
"""Name of a file -> its rows, the first of which names the columns."""


@runtime_checkable
class Makable(Protocol):
    """What `synth` writes: so many films and the tables that say what is in them."""

    @property
    def videos(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    def name(self, index: int) -> str: ...

    def film(self, index: int) -> Film: ...

    def tables(self) -> Tables: ...

    def settings(self) -> dict[str, Any]: ...


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
    wild_kinds: int = 0
    """So many kinds drawn from their numbers (`wild`) instead of the twelve; each fills the frame,
    so none stands by in silence.
    """

    def __post_init__(self) -> None:
        if (
            self.videos < 1
            or self.seconds < 1
            or not 16 <= self.side_pixels <= 4096
            or not 1 <= self.frames_per_second <= 120
        ):
            raise ConfigError(
                "a world needs at least 1 video of at least 1 second, of 16 to 4096 pixels, at 1 to 120 frames a second"
            )
        if self.wild_kinds < 0 or self.wild_kinds == 1:
            raise ConfigError(
                f"{self.wild_kinds} wild kinds make no world: 0 for the twelve plain kinds, or at least 2"
            )
        if not (0 <= self.silent_share <= 1 and 0 <= self.test_share < 1):
            raise ConfigError("silent_share and test_share are shares: between 0 and 1")
        if self.side_pixels % 2:
            raise ConfigError(f"side_pixels {self.side_pixels} is odd; H.264 needs an even size")

    @property
    def classes(self) -> tuple[str, ...]:
        return names(self.wild_kinds) if self.wild_kinds else CLASSES

    def name(self, index: int) -> str:
        return f"{index:06d}.mp4"

    def scene(self, index: int) -> Scene:
        """The scene of video `index`: classes in turn, so that every run of as many videos holds
        each once.
        """
        turn, place = divmod(index, len(self.classes))
        split = SPLITS[
            int((turn + 1) * self.test_share + 1e-9) > int(turn * self.test_share + 1e-9)
        ]
        rng = np.random.default_rng((self.seed, index, 2))
        silent_share = 0.0 if self.wild_kinds else self.silent_share
        backgrounds = max(self.videos // self.videos_per_background, 1)
        background = (self.seed, SPLITS.index(split), int(rng.integers(backgrounds)), 3)
        return draw_scene(
            (self.seed, index),
            self.classes[place],
            split,
            background,
            self.seconds,
            silent_share,
            self.classes,
        )

    def tables(self) -> Tables:
        """The truth: labels, boxes of every thing every fifth of a second, onsets of notes."""
        labels: list[tuple[object, ...]] = [("path", "label", "split", "background")]
        boxes: list[tuple[object, ...]] = [
            ("path", "time", "x0", "y0", "x1", "y1", "label", "sounding")
        ]
        onsets: list[tuple[object, ...]] = [("path", "time", "label")]
        times = np.arange(0, self.seconds, BOX_INTERVAL_SECONDS)
        for index in range(self.videos):
            scene, name = self.scene(index), self.name(index)
            labels.append((name, scene.label, scene.split, "-".join(map(str, scene.background))))
            for t in times:
                for thing in scene.things:
                    corners = (f"{v:.4f}" for v in thing.box(float(t)))
                    boxes.append((name, f"{t:.3f}", *corners, thing.label, int(thing.sounding)))
            onsets.extend((name, f"{onset:.4f}", scene.label) for onset, _ in scene.notes)
        return {"labels": labels, "boxes": boxes, "onsets": onsets}

    def film(self, index: int) -> Film:
        """Video `index`, drawn as it is read."""
        scene = self.scene(index)
        ground = draw_ground(scene, self.side_pixels)
        times = (
            number / self.frames_per_second
            for number in range(round(scene.seconds * self.frames_per_second))
        )
        pictures = (render_frame(scene, ground, at) for at in times)
        return Film(
            pictures, render_sound(scene, SAMPLE_RATE_HZ), self.side_pixels, self.frames_per_second
        )

    def settings(self) -> dict[str, Any]:
        """What equal films have equal."""
        return asdict(self)


def synth(
    out: Path, world: Makable, workers: int | None = None, progress: Progress = no_progress
) -> dict[str, object]:
    """Write `world` under `out`: `000000.mp4` …, its tables as CSV, `world.json`.

    Of a `World`: `labels.csv` (path, label, split, background), `boxes.csv` (path, time in seconds,
    x0, y0, x1, y1 in 0..1, label, sounding), `onsets.csv` (path, time in seconds, label). Of a
    `Collage`: `labels.csv` (path, label, split, picture, sound). Videos that are there already are
    kept. Raises ConfigError when `out` holds a world of other settings.
    """
    out = Path(out)
    settings = out / "world.json"
    if settings.exists() and json.loads(settings.read_text()) != json.loads(
        json.dumps(world.settings())
    ):
        raise ConfigError(
            f"{out} holds a world of other settings (see {settings}); choose another folder or delete that one"
        )
    out.mkdir(parents=True, exist_ok=True)
    remove_abandoned_scratch(out)
    write_json(settings, world.settings())
    _write_tables(out, world.tables())
    missing = [i for i in range(world.videos) if not (out / world.name(i)).exists()]
    tasks = [(out, world, index) for index in missing]
    for _ in map_unordered(_make_video, tasks, workers, progress):
        pass
    return {
        "videos": world.videos,
        "made": len(missing),
        "hours": world.videos * world.seconds / 3600,
        "path": str(out),
    }


def _write_tables(out: Path, tables: Tables) -> None:
    for table, rows in tables.items():
        with atomic_write(out / f"{table}.csv") as scratch, scratch.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def _make_video(task: tuple[Path, Makable, int]) -> None:
    out, world, index = task
    with atomic_write(out / world.name(index)) as scratch:
        world.film(index).write(scratch)
