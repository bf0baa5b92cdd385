"""A program that kills itself with SIGKILL at a commit, and what an index holds, for tests of both.

python killed_index.py COMMITS VERB ...     # `looklisten VERB ...`, killed at a later commit
python killed_index.py maintain VERB ...    # killed when the store is to be maintained
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

import looklisten as ll
from conftest import small_config, write_sound
from looklisten.search.opening import open_store

RATE_HZ = 48_000
KINDS = ["arrow", "lance"]
SOURCES_AT_ONCE = 3
"""In the killed program, so that a few files are several commits."""


def general_network(folder):
    """The name of a network with untrained towers and the fusion `linear`."""
    recipe = folder / "linear.toml"
    config = small_config(objective="contrastive").changed("model", fusion="linear", sharpness=3.0)
    recipe.write_text(config.toml(), encoding="utf-8")
    return f"untrained:{recipe}"


def write_chord(path, number, seconds=1.0):
    """Four tones; each number gives others."""
    generator = np.random.default_rng(number)
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    hz = generator.uniform(150, 3_000, size=4)
    write_sound(path, 0.1 * np.sin(2 * np.pi * hz[:, None] * times).sum(0))


def write_media(folder, world, chords):
    """Twelve videos and short sounds."""
    for path in sorted(world.rglob("*.mp4"))[:12]:
        shutil.copy(path, folder)
    for number in range(chords):
        write_chord(folder / f"chord {number:02d}.wav", number)
    return folder


def rows(db):
    """All of every row, in the order of source and time."""
    with open_store(db) as store:
        moments = sorted(store.moments(), key=lambda each: (each.source, each.seconds))
    values = []
    for m in moments:
        vectors = [None if each is None else each.tobytes() for each in (m.vision, m.audio)]
        facts = (m.source, m.seconds, m.moment_id, m.marks, m.thumbnail, m.label)
        values.append((*facts, dict(m.tags), *vectors))
    return values


def answers(db, media):
    """What some searches find, with their scores."""
    found = []
    video = sorted(media.glob("*.mp4"))[3]
    with ll.open_index(db, device="cpu") as index:
        for query in (media / "chord 07.wav", f"{video}@1", video):
            for find in ("sound", "picture"):
                hits = index.search(query, find=find, k=20, threshold=0.0)
                found.append([(hit.source, hit.seconds, hit.score) for hit in hits])
    return found


def thumbnails(db):
    """The names of all thumbnails."""
    return {str(path.relative_to(db)) for path in (db / "thumbnails").rglob("*.jpg")}


def killed_at(commit, *arguments):
    """Run a command in a process that is killed when it begins that commit, from 0."""
    command = [sys.executable, __file__, str(commit), *map(str, arguments), "--device", "cpu"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def main():
    from looklisten.app.cli import main as looklisten
    from looklisten.search.arrow_store import ArrowStore
    from looklisten.search.indexing import parts
    from looklisten.search.lance_store import LanceStore
    from looklisten.training import own_classes

    commits_left = int(sys.argv[1]) if sys.argv[1] != "maintain" else None
    own_classes.SOURCES_AT_ONCE = parts.SOURCES_OF_A_COMMIT = SOURCES_AT_ONCE

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def killing(add):
        def add_or_die(store, moments):
            nonlocal commits_left
            if not commits_left:
                die()
            commits_left -= 1
            add(store, moments)

        return add_or_die

    for kind in (ArrowStore, LanceStore):
        if commits_left is None:
            kind.maintain = die
        else:
            kind.add = killing(kind.add)
    sys.exit(looklisten(sys.argv[2:]))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
