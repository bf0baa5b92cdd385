"""How well an index of real clips is searched: across the sides, by tag, and for nothing.

    python benchmarks/retrieval.py FOLDER --out OUT [--network NAME]

FOLDER has `clips.csv` (path, video_id, split, label, kind: natural or reel) and the videos. Four
tables, as Markdown; OUT/retrieval.json has all figures.

1. Retrieval. The recipe `start` is trained on the videos of the split train, without a label. The
   natural clips of the split test are indexed with it. Each second of sound ranks these videos by
   their pictures, and each frame by their sounds. Intervals are over videos. --network measures
   that network instead; one that was trained on these clips looks better than it is.
2. nDCG@30 by label in the same index, in four directions. `class_ranking.py` measures shards.
3. Tags. All clips are indexed. Of the ten scenes with the highest score of a tag, each of another
   file, how many have the label? Labels are few and coarse, so a wrong one may be a right scene.
4. Nothing. Queries without content, and clips whose own video is left out of the index. A false
   alarm is a query that finds something.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import looklisten as ll
from looklisten.evaluation.class_ranking import class_rankings
from looklisten.evaluation.retrieval import retrieval
from looklisten.evaluation.statistics import wilson_interval
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.search.filters import text_literal
from looklisten.search.finding.query import read_query
from looklisten.search.opening import open_store
from looklisten.search.options import FindSide, QuerySide, SearchOptions

DRUM_WORDS = ("drum kit", "djembe", "tabla", "congas", "percussion")
TAGS: dict[str, Callable[[str], bool]] = {
    "Dog": lambda label: "dog" in label,
    "Train": lambda label: label == "train" or "metro" in label,
    "Drum": lambda label: any(word in label for word in DRUM_WORDS),
}
DRUM_LABEL = "drum"
QUERIES_OF_EACH_KIND = 40
SECONDS = 3
BAR_COLORS = np.array([(1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1)])
ACROSS: tuple[tuple[FindSide, QuerySide], ...] = (("sound", "picture"), ("picture", "sound"))


def clips_of(folder: Path) -> list[dict[str, str]]:
    """The rows of the table, with absolute paths."""
    with (folder / "clips.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row | {"path": str((folder / row["path"]).absolute())} for row in rows]


def write_table(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["path", "video_id", "split", "label"], extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return path


def trained_network(rows: Sequence[dict[str, str]], out: Path) -> str:
    """The recipe `start`, trained on the split train alone."""
    run = out / "run"
    if not run.exists():
        ll.prepare([write_table(out / "clips.csv", rows)], out / "shards")
        ll.train(out / "shards", ll.Config.load("start"), run)
    return str(run)


def tag_precisions(db: Path) -> list[dict[str, Any]]:
    """Of the ten best scenes of each tag, how many have the label."""
    with ll.open_index(db) as index, open_store(db) as store:
        labels = {moment.source: moment.label or "" for moment in store.moments()}
        lines = []
        for tag, is_label in TAGS.items():
            hits = index.search(tag=tag, find="sound", k=50, threshold=0.0)
            sources = list(dict.fromkeys(hit.source for hit in hits))[:10]
            right = sum(is_right(tag, labels[source], is_label) for source in sources)
            there = sum(is_right(tag, label, is_label) for label in labels.values())
            above = [hit for hit in hits if hit.score >= 0.2]
            lines.append(
                {
                    "tag": tag,
                    "precision@10": f"{right} of {len(sources)}",
                    "clips with the label": there,
                    "of all clips": len(labels),
                    "scenes above 0.2": len(above),
                    "labels of the ten": [labels[source] for source in sources],
                }
            )
    return lines


def is_right(tag: str, label: str, is_label: Callable[[str], bool]) -> bool:
    return is_label(label) or (tag == "Drum" and label == DRUM_LABEL)


def empty_queries(folder: Path) -> dict[str, list[Path]]:
    """Files without anything to find, of each kind, and test signals."""
    generator = np.random.default_rng(0)
    kinds: dict[str, list[Path]] = {}
    for number in range(QUERIES_OF_EACH_KIND):
        noise = generator.standard_normal(SECONDS * SAMPLE_RATE_HZ)
        level = 10 ** generator.uniform(-2.5, -0.5)
        sounds = {
            "silence": 0 * noise,
            "hiss below -60 dB": 3e-4 * noise,
            "white noise": level * noise,
            "pink noise": level * colored(noise, 0.5),
            "brown noise": level * colored(noise, 1.0),
            "hum of 50 Hz": level * tones(50, [1]),
            "hum of 60 Hz with harmonics": level * tones(60, generator.uniform(0, 1, 8)),
            "hum of 50 Hz with hiss 20 dB below": 0.5 * (tones(50, [1]) + 0.07 * noise),
            "offset with hiss at -50 dB": 0.3 + 3e-3 * noise,
            "tone of 1 kHz": level * tones(1000, [1]),
        }
        brightness = generator.integers(64, 256)
        color = generator.integers(0, 256, 3)
        pictures = {
            "black": np.zeros((224, 224, 3)),
            "one color": np.broadcast_to(color, (224, 224, 3)),
            "random pixels": generator.integers(0, 256, (224, 224, 3)),
            "color bars": np.tile(np.repeat(BAR_COLORS * brightness, 32, axis=0), (224, 1, 1)),
        }
        for kind, wave in sounds.items():
            path = folder / f"{kind} {number}.wav"
            write_wav(path, wave)
            kinds.setdefault(kind, []).append(path)
        for kind, pixels in pictures.items():
            path = folder / f"{kind} {number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            kinds.setdefault(kind, []).append(path)
    return kinds


def tones(hz: float, levels: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """A tone and its harmonics, of at most 1."""
    seconds = np.arange(SECONDS * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    wave = np.zeros(len(seconds))
    for number, level in enumerate(levels, 1):
        wave += level * np.sin(2 * np.pi * hz * number * seconds)
    return wave / float(np.abs(wave).max())


def colored(noise: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Noise whose amplitude falls with that power of the frequency, of deviation 1."""
    spectrum = np.fft.rfft(noise)
    spectrum[1:] /= np.arange(1, len(spectrum)) ** exponent
    spectrum[0] = 0
    wave: NDArray[np.float64] = np.fft.irfft(spectrum, len(noise))
    return wave / float(wave.std())


def write_wav(path: Path, wave: NDArray[np.float64]) -> None:
    import wave as wave_files

    samples = np.clip(np.rint(wave * 32767), -32768, 32767).astype("<i2")
    with wave_files.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.tobytes())


def false_alarms(db: Path, rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """How many queries of each kind find something."""
    lines = []
    with ll.open_index(db) as index, tempfile.TemporaryDirectory() as scratch:
        for kind, paths in empty_queries(Path(scratch)).items():
            found = [bool(len(index.search(path))) for path in paths]
            lines.append(alarm_line(kind, found))
        for find, by in ACROSS:
            own: list[bool] = []
            others: list[bool] = []
            for row in rows:
                name = text_literal(row["video_id"])
                query = read_query(row["path"], index.encoder)
                for is_found, equal in ((own, "="), (others, "<>")):
                    options = SearchOptions(find=find, by=by, where=f"video_id {equal} {name}")
                    is_found.append(bool(len(index.search_vectors(query, 1, options))))
            lines.append(alarm_line(f"{by} to {find}, among moments of the own video", own))
            lines.append(alarm_line(f"{by} to {find}, own video left out", others))
    return lines


def alarm_line(kind: str, found: Sequence[bool]) -> dict[str, Any]:
    share = sum(found) / len(found)
    low, high = wilson_interval(share, len(found))
    return {
        "query": kind,
        "queries": len(found),
        "finds something": round(share, 3),
        "95 %": f"{low:.3f} – {high:.3f}",
    }


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    names = list(lines[0])
    rows = [names, ["---"] * len(names), *([str(line[name]) for name in names] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network")
    arguments = parser.parse_args()
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    rows = clips_of(arguments.folder)
    network = arguments.network or trained_network(rows, out)
    held_out = [row for row in rows if row["split"] == "test" and row["kind"] == "natural"]
    ll.index([write_table(out / "test.csv", held_out)], out / "test", network)
    ll.index([write_table(out / "all.csv", rows)], out / "all", network)
    figures: dict[str, Any] = {
        "network": network,
        "retrieval": [each.as_dict() for each in retrieval(out / "test")],
        "classes": [each.as_dict() for each in class_rankings(out / "test")],
        "tags": tag_precisions(out / "all"),
        "alarms": false_alarms(out / "test", held_out),
    }
    (out / "retrieval.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    for name in ("retrieval", "classes", "tags", "alarms"):
        print(markdown(figures[name]))


if __name__ == "__main__":
    main()
