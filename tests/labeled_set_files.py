"""Makes labeled sets on disk, in the layouts of their owners."""

import csv
from pathlib import Path


def make_empty_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def esc_rows(classes: int, folds: int = 5) -> list[dict[str, object]]:
    """Rows of the owner's meta/esc50.csv; every other class belongs to ESC-10."""
    return [
        {
            "filename": f"{fold}-{100 + number}-A-{number}.wav",
            "fold": fold,
            "target": number,
            "category": f"class_{number}",
            "esc10": str(number % 2 == 0),
            "src_file": 100 + number,
            "take": "A",
        }
        for fold in range(1, folds + 1)
        for number in range(classes)
    ]


def urbansound8k_rows(classes: list[str]) -> list[dict[str, object]]:
    """Rows of the owner's metadata/UrbanSound8K.csv: one sound of each class in each fold."""
    return [
        {
            "slice_file_name": f"{fold}-{number}-0-0.wav",
            "fsID": fold,
            "start": 0.0,
            "end": 4.0,
            "salience": 1,
            "fold": fold,
            "classID": number,
            "class": name,
        }
        for fold in range(1, 11)
        for number, name in enumerate(classes)
    ]
