"""Where the vectors of a source go, and whether those in a folder are of the same kind.

Knows names of files and `embed.json`, no network and no media.
"""

import hashlib
import json
from collections.abc import Set
from pathlib import Path
from typing import Any

from looklisten.data.sources import Source, as_file_name
from looklisten.errors import ConfigError
from looklisten.inference.embedding.writers import VECTOR_FORMATS
from looklisten.system.files import write_json

MAX_NAME_BYTES = 255
"""File systems refuse a longer name of a file or folder."""

DIGEST_DIGITS = 16
"""Hexadecimal digits that replace the end of a name that is too long."""

NETWORK_KEY = "network_sha256"
"""The field of `embed.json` that says which network made the vectors."""

FolderFacts = dict[str, Any]
"""What all vectors of a folder have in common: the contents of `embed.json`."""


def vector_path(folder: Path, source: Source, format_name: str) -> Path:
    """The file for the vectors of a source, in the same folders as the source."""
    *parents, name = source.path.replace("://", "/").split("/")
    # The suffix of the source stays, so that a.wav and a.mp3 have different files.
    names = [*map(shorten_name, parents), shorten_name(name, f".{format_name}")]
    # The name of a source is Unicode, and that of its file has the same bytes in any locale.
    return folder.joinpath(*map(as_file_name, names))


def shorten_name(name: str, suffix: str = "") -> str:
    """`name + suffix`; a digest replaces the end of a name that file systems refuse as too long."""
    full_name = _name_bytes(name + suffix)
    if len(full_name) <= MAX_NAME_BYTES:
        return name + suffix
    digest = hashlib.sha256(full_name).hexdigest()[:DIGEST_DIGITS]
    end = f"~{digest}{suffix}"
    start = _name_bytes(name)[: MAX_NAME_BYTES - len(_name_bytes(end))]
    # The cut may be inside a character, which is dropped.
    return start.decode("utf-8", "ignore") + end


def _name_bytes(name: str) -> bytes:
    """A name as the file system stores it; it may hold bytes that are no UTF-8."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace")


def check_folder(folder: Path, facts: FolderFacts, overwrite: bool, targets: Set[Path]) -> None:
    """Write `embed.json`. Raises ConfigError if the folder holds vectors of another kind.

    With `overwrite` they may be of another kind if all of them are in `targets`, the files that
    this run writes.
    """
    path = folder / "embed.json"
    if path.exists():
        _check_same_kind(folder, path, facts, overwrite, targets)
    write_json(path, facts)


def _check_same_kind(
    folder: Path, path: Path, facts: FolderFacts, overwrite: bool, targets: Set[Path]
) -> None:
    before = _read_facts(path)
    advice = "use another folder, or --overwrite"
    if NETWORK_KEY not in before and not overwrite:
        raise ConfigError(
            f"{path} is from an older version and does not say which network made the vectors "
            f"of {folder}; {advice}"
        )
    differences = []
    for name, value in facts.items():
        # A network is known by its key. Its step is only for people.
        if name != "step" and before.get(name) != value:
            differences.append(_difference(name, before.get(name), value))
    if not differences:
        return
    if overwrite:
        _check_all_are_replaced(folder, targets)
        return
    steps = ""
    if before.get("step") != facts["step"]:
        steps = f" (step {before['step']}, now step {facts['step']})"
    raise ConfigError(
        f"{folder} holds vectors with other settings{steps}: {', '.join(differences)}; {advice}"
    )


def _read_facts(path: Path) -> FolderFacts:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _difference(name: str, before: Any, now: Any) -> str:
    if name == NETWORK_KEY:
        return f"another network ({str(before)[:12]} instead of {str(now)[:12]})"
    return f"{name} was {_in_words(name, before)}, now it is {_in_words(name, now)}"


def _in_words(name: str, value: Any) -> Any:
    if value is None:
        # No value is the default; of the layer it is the network's usual one.
        return "the usual one" if name == "layer" else "not set"
    return value


def _check_all_are_replaced(folder: Path, targets: Set[Path]) -> None:
    """Raise ConfigError if overwriting would leave vectors of two kinds in the folder."""
    other_files = {folder / "embed.json", folder / "failures.jsonl"}
    remaining = []
    for name in VECTOR_FORMATS:
        for path in sorted(folder.rglob(f"*.{name}")):
            is_scratch = ".aside-" in str(path)
            if path not in targets and path not in other_files and not is_scratch:
                remaining.append(path)
    if remaining:
        raise ConfigError(
            f"{folder} holds {len(remaining)} files of vectors with other settings that "
            f"--overwrite would not replace, since their sources are not among the inputs, such "
            f"as {remaining[0]}; delete them, or use another folder"
        )
