"""The files of an index beside its store: what made it, thumbnails, and which files were seen.

Knows paths and JSON, no vectors.
"""

import json
import shutil
from collections.abc import Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from looklisten.config import SIDES
from looklisten.errors import ConfigError
from looklisten.inference.embedding.fingerprints import SourceStamp
from looklisten.model.networks import HF_PREFIX, Run
from looklisten.model.shipped import is_shipped
from looklisten.search.indexing.moment_encoder import MomentEncoder
from looklisten.system.files import write_json

FACTS_FILE = "network.json"
THUMBNAILS = "thumbnails"


class IndexFolder:
    """The folder of an index."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def thumbnails(self) -> Path:
        """The folder of all thumbnails; a row has a name below it."""
        return self.path / THUMBNAILS

    def seen_files(self) -> "SeenFiles":
        """What is known of the files that were read for the index."""
        return SeenFiles(self.path / "seen.jsonl")

    def facts(self) -> dict[str, Any]:
        """What made the index; empty for a new one."""
        path = self.path / FACTS_FILE
        try:
            facts = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            facts = None
        if not isinstance(facts, dict):
            raise ConfigError(f"{path} is damaged; remove it and run `looklisten index` again")
        return facts

    def write_facts(self, facts: dict[str, Any]) -> None:
        write_json(self.path / FACTS_FILE, facts)

    def save_thumbnail(self, digest: str, seconds: float, jpeg: bytes) -> str:
        """Store a thumbnail of the source with this digest; returns its name."""
        name = f"{_folder_of(digest)}/{round(seconds * 1000):09d}.jpg"
        path = self.thumbnails / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg)
        return name

    def remove_thumbnails(self, keep: Set[str]) -> None:
        """Remove the thumbnails of all sources but those with these digests."""
        kept_names = {_folder_of(digest) for digest in keep}
        for folder in self.thumbnails.glob("*/*"):
            if f"{folder.parent.name}/{folder.name}" not in kept_names:
                shutil.rmtree(folder, ignore_errors=True)


def _folder_of(digest: str) -> str:
    # Folders of many thousand entries are slow.
    return f"{digest[:2]}/{digest[2:18]}"


def write_facts(
    folder: IndexFolder, run: Run, encoder: MomentEncoder, every_seconds: float
) -> None:
    """Write down what makes the index. Raises ConfigError if the index has other moments.

    The store itself refuses another network.
    """
    facts = folder.facts()
    before = facts.get("every_seconds", every_seconds)
    if before != every_seconds:
        raise ConfigError(
            f"the index {folder.path} has a moment every {before:g} s, not every "
            f"{every_seconds:g} s; give --every-seconds {before:g}, or another --db"
        )
    new = facts | {
        "network": absolute_network(run.name),
        "network_sha256": run.network_key,
        "every_seconds": every_seconds,
        "classes": {side: list(encoder.tag_names(side)) for side in SIDES},
    }
    if new != facts:
        folder.write_facts(new)


def absolute_network(network: str) -> str:
    """The name of a network, for processes that work in another folder."""
    if is_shipped(network):
        return network
    prefix = HF_PREFIX if network.startswith(HF_PREFIX) else ""
    folder = Path(network.removeprefix(prefix)).expanduser()
    return f"{prefix}{folder.absolute()}" if folder.exists() else network


class SeenFiles:
    """Digests of files, so that a file that did not change is not read again, and their labels.

    A file with a new line for each file that was read or indexed; without it all files are read
    again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamps: dict[str, SourceStamp] = {}
        self._names: dict[str, SourceNames] = {}
        if path.exists():
            for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._take(text)

    def _take(self, text: str) -> None:
        try:
            line = json.loads(text)
            if "video_id" in line:
                self._names[line["source"]] = SourceNames(line["label"], line["video_id"])
            else:
                self._stamps[line["source"]] = SourceStamp.read(line)
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # an interrupted run left the line incomplete

    def get(self, name: str) -> SourceStamp | None:
        """What was known of a source."""
        return self._stamps.get(name)

    def unchanged(self, name: str, path: Path) -> SourceStamp | None:
        """What was known of a file, if its size and its date are still the same."""
        before = self._stamps.get(name)
        if before is None:
            return None
        now = SourceStamp.of(path, with_digest=False)
        is_same = (
            before.source_bytes == now.source_bytes
            and before.source_modified_ns == now.source_modified_ns
        )
        return before if is_same else None

    def stamp_of(self, name: str, path: Path, is_copy: bool = False) -> SourceStamp:
        """The stamp of a file as it is now; the file is read only if its size or date changed.

        is_copy: the file is the copy of a remote one, whose date says nothing.
        """
        before = None if is_copy else self.unchanged(name, path)
        if before is not None:
            return before
        stamp = SourceStamp.of(path)
        if is_copy:
            stamp = SourceStamp(stamp.source_bytes, None, stamp.source_sha256)
        if stamp.source_sha256 is not None:
            self._stamps[name] = stamp
            self._append({"source": name} | asdict(stamp))
        return stamp

    def names_of(self, name: str) -> "SourceNames | None":
        """The label and the video id that a source was indexed with."""
        return self._names.get(name)

    def note_names(self, name: str, names: "SourceNames") -> None:
        """Remember what a source was indexed with."""
        if self._names.get(name) != names:
            self._names[name] = names
            self._append({"source": name} | asdict(names))

    def _append(self, line: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@dataclass(frozen=True, slots=True)
class SourceNames:
    """What a table says of a source; it may change while the content does not."""

    label: str | None
    video_id: str
