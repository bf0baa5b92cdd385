"""A drawn world: which class, split and background each video has, and the tables of its truth.

Video i depends on the options and on i alone. Knows scenes; writes no file.
"""

import itertools
from dataclasses import asdict
from typing import Any

import numpy as np

from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.synth.folder import Tables, video_name
from looklisten.media.synth.options import WORLD_COLUMNS, WorldOptions
from looklisten.media.synth.random_classes import class_names
from looklisten.media.synth.rendered_video import RenderedVideo
from looklisten.media.synth.scenes import (
    CLASSES,
    Scene,
    random_scene,
    render_background,
    render_frame,
    render_sound,
)

BOX_INTERVAL_SECONDS = 0.2
"""The table of boxes has one row for each object in this interval."""

WORLD_SPLITS = ("train", "test")


def split_of(turn: int, test_share: float) -> str:
    """The split of the videos of one turn: `test_share` of the turns are "test", evenly spread."""
    # The small number keeps rounding from deciding, for example at 5 * 0.2.
    tests_before = int(turn * test_share + 1e-9)
    tests_after = int((turn + 1) * test_share + 1e-9)
    return "test" if tests_after > tests_before else "train"


class World:
    """The videos of a drawn world."""

    def __init__(self, options: WorldOptions) -> None:
        self.options = options

    @property
    def classes(self) -> tuple[str, ...]:
        count = self.options.random_classes
        return class_names(count) if count else CLASSES

    def first_test_turn(self) -> int:
        """The first turn of the classes whose videos are test videos; `test_share` is above 0."""
        for turn in itertools.count():
            if split_of(turn, self.options.test_share) == "test":
                return turn
        raise AssertionError

    def has_test_videos(self) -> bool:
        """Whether any video is in the split test; `test_share` is above 0."""
        return self.options.videos > self.first_test_turn() * len(self.classes)

    def scene(self, index: int) -> Scene:
        """The scene of video `index`. Classes come in turn, so that all are equally frequent."""
        options = self.options
        turn, class_number = divmod(index, len(self.classes))
        split = split_of(turn, options.test_share)
        # The 2 keeps these numbers apart from those of the scene and of its sound.
        rng = np.random.default_rng((options.seed, index, 2))
        # Objects of random classes fill the frame: there is no space for a second one.
        silent_share = 0.0 if options.random_classes else options.silent_share
        backgrounds = max(options.videos // options.videos_per_background, 1)
        # The split is a part of the seed, so the splits never share a background.
        split_number = WORLD_SPLITS.index(split)
        background = (options.seed, split_number, int(rng.integers(backgrounds)), 3)
        return random_scene(
            (options.seed, index),
            self.classes[class_number],
            split,
            background,
            options.seconds,
            silent_share,
            self.classes,
        )

    def tables(self) -> Tables:
        """`labels`, `boxes` of every object in every interval, and `onsets` of notes."""
        labels: list[tuple[object, ...]] = [WORLD_COLUMNS]
        boxes: list[tuple[object, ...]] = [
            ("path", "time", "x0", "y0", "x1", "y1", "label", "sounding")
        ]
        onsets: list[tuple[object, ...]] = [("path", "time", "label")]
        times = np.arange(0, self.options.seconds, BOX_INTERVAL_SECONDS)
        for index in range(self.options.videos):
            scene = self.scene(index)
            name = video_name(index)
            background = "-".join(map(str, scene.background))
            labels.append((name, scene.label, scene.split, background))
            for seconds in times:
                for scene_object in scene.objects:
                    corners = (f"{corner:.4f}" for corner in scene_object.box(float(seconds)))
                    sounding = int(scene_object.sounding)
                    boxes.append((name, f"{seconds:.3f}", *corners, scene_object.label, sounding))
            onsets.extend((name, f"{onset:.4f}", scene.label) for onset, _ in scene.notes)
        return {"labels": labels, "boxes": boxes, "onsets": onsets}

    def video(self, index: int) -> RenderedVideo:
        """Video `index`; its frames are drawn when they are read."""
        options = self.options
        scene = self.scene(index)
        background = render_background(scene, options.side_pixels)
        frame_count = round(scene.seconds * options.frames_per_second)
        frames = (
            render_frame(scene, background, number / options.frames_per_second)
            for number in range(frame_count)
        )
        sound = render_sound(scene, SAMPLE_RATE_HZ)
        return RenderedVideo(frames, sound, options.side_pixels, options.frames_per_second)

    def settings(self) -> dict[str, Any]:
        """Everything that the files depend on."""
        return asdict(self.options)
