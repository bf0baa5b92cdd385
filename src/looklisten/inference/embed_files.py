"""Many files -> a file of vectors for each, in a folder of the same structure. What is done is left; what fails is written down."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from looklisten.data.sources import MEDIA_SUFFIXES, Source, find_sources, open_source
from looklisten.data.worker import MACHINE_TROUBLE
from looklisten.errors import ConfigError
from looklisten.inference.embeddings import Embeddings
from looklisten.inference.encoder import Encoder, Precision, encoder_of
from looklisten.inference.intake import aligned, parts
from looklisten.inference.layers import Side
from looklisten.inference.streaming import How
from looklisten.inference.vector_files import Format, VectorFile, gathered, vector_file
from looklisten.media.isolated import find_streams
from looklisten.media.pictures import is_picture
from looklisten.model.l3net import L3Net
from looklisten.runtime import Progress, silent, sweep_aside, write_json

Modality = Literal["auto", "audio", "image", "video"]
"""What is taken of a file: its sound, its picture, both, or what it has."""

SIDES: dict[Modality, tuple[Side, ...]] = {"audio": ("audio",), "image": ("vision",), "video": ("audio", "vision")}


@dataclass(frozen=True)
class Plan:
    """What is made of every file, and where it goes."""

    out: Path
    how: How
    modality: Modality = "auto"
    align: bool = False
    format: Format = "npz"
    overwrite: bool = False
    network: str = ""
    """The network's name, for `embed.json`."""
    precision: Precision = "float32"

    def target(self, source: Source) -> Path:
        """The whole name of the source stays in the name, so that `a.wav` and `a.mp3` are two."""
        return self.out / f"{source.path.replace('://', '/')}.{self.format}"

    def is_done(self, source: Source) -> bool:
        return not self.overwrite and self.target(source).exists()

    def about(self, root: Path) -> dict[str, Any]:
        """Everything that the vectors of a folder have in common."""
        how = {name: getattr(self.how, name) for name in ("layer", "center", "normalize", "dense")}
        same = {"root": str(root), "network": self.network, "modality": self.modality, "align": self.align, "precision": self.precision}
        return same | how | {"hop_seconds": float(self.how.hop_seconds)}


def embed_files(inputs: Sequence[str | Path], model: L3Net | Encoder, plan: Plan, progress: Progress = silent) -> dict[str, Any]:
    """Vectors of every file that `inputs` name (as for `prepare`, and sounds and pictures too), in files below `plan.out`.

    `embed.json` there says how they were made, `failures.jsonl` has a line for each file that failed or broke off. Run again it
    does what is not done and tries anew what failed. Raises ConfigError when the folder holds vectors that were made otherwise.
    """
    encoder = encoder_of(model, plan.precision)
    sources = find_sources(inputs, suffixes=MEDIA_SUFFIXES)
    if any(source.start_seconds is not None or source.stop_seconds is not None for source in sources.found):
        raise ConfigError("embed takes whole files, and this table names stretches; leave start_seconds and stop_seconds away")
    _agree(plan, plan.about(sources.root))
    for folder in {plan.target(source).parent for source in sources.found}:
        sweep_aside(folder)
    failures = _Failures(plan.out / "failures.jsonl", {source.path for source in sources.found if plan.is_done(source)})
    for missing in sources.missing:
        failures.add(missing, "there is no such file")
    counts = {"sources": len(sources.found) + len(sources.missing), "embedded": 0, "skipped": 0, "vectors": 0}
    for done, source in enumerate(sources.found):
        if plan.is_done(source):
            counts["skipped"] += 1
        else:
            made, reason = _attempt(sources.root, source, encoder, plan, partial(progress, done, len(sources.found)))
            counts["embedded"] += made > 0
            counts["vectors"] += made
            if reason:
                failures.add(source.path, reason)
        progress(done + 1, len(sources.found))
    return counts | {"failed": len(failures.lines), "out": str(plan.out)}


def _agree(plan: Plan, about: dict[str, Any]) -> None:
    """Write down how the vectors of the folder are made, or see that those in it were made so."""
    path = plan.out / "embed.json"
    if path.exists() and not plan.overwrite:
        before = json.loads(path.read_text(encoding="utf-8"))
        other = [f"{name} {before.get(name)} instead of {value}" for name, value in about.items() if before.get(name) != value]
        if other:
            raise ConfigError(f"{plan.out} holds vectors made otherwise ({', '.join(other)}); take another folder, or --overwrite")
    write_json(path, about)


class _Failures:
    """`failures.jsonl`: a line for each file, written as soon as it is known. Lines of files that are `done` stay: they broke off."""

    def __init__(self, path: Path, done: set[str]) -> None:
        before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.lines = [line for line in before if line and json.loads(line)["source"] in done]
        self._path = path
        path.write_text("".join(f"{line}\n" for line in self.lines), encoding="utf-8")

    def add(self, source: str, reason: str) -> None:
        self.lines.append(json.dumps({"source": source, "reason": reason}, ensure_ascii=False))
        with self._path.open("a", encoding="utf-8") as file:
            file.write(self.lines[-1] + "\n")


def _attempt(root: Path, source: Source, encoder: Encoder, plan: Plan, tell: Callable[..., None]) -> tuple[int, str]:
    """How many vectors were written, and what was wrong. A bad file costs itself alone; a full disk or a wrong setting stops all."""
    try:
        with _at_hand(root, source) as path, vector_file(plan.target(source), plan.format) as file:
            return _embed(path, source.path, encoder, plan, file, tell)
    except ConfigError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE_TROUBLE:
            raise
        return 0, str(error) or type(error).__name__


@contextmanager
def _at_hand(root: Path, source: Source) -> Iterator[Path]:
    """A local path to the source; a remote one is fetched, and removed after."""
    if "://" not in source.path:
        yield root / source.path
        return
    with TemporaryDirectory(prefix="looklisten-") as scratch:
        path = Path(scratch) / Path(source.path.partition("?")[0]).name
        with open_source(root, source) as remote, path.open("wb") as here:
            shutil.copyfileobj(remote, here, 2**20)
        yield path


def _embed(path: Path, name: str, encoder: Encoder, plan: Plan, file: VectorFile, tell: Callable[..., None]) -> tuple[int, str]:
    sides = _sides(path, encoder, plan.modality)
    if plan.align and len(sides) == 2:
        both = aligned(path, encoder, plan.how)
        pieces: Iterable[Embeddings] = [both.audio, both.vision]
        file.note("frame_seconds", both.frame_seconds)
    else:
        pieces = (part for side in sides for part in gathered(parts(path, encoder, plan.how, side)))
    count, broken_off = 0, ""
    for part in pieces:
        file.write(replace(part, source=name))
        count += len(part)
        broken_off = part.broken_off or broken_off
        tell(at=f"{part.start_seconds[-1] / 60:.0f} min")
    return count, f"{broken_off}; what came before is embedded" if broken_off else ""


def _sides(path: Path, encoder: Encoder, modality: Modality) -> tuple[Side, ...]:
    if modality != "auto":
        return SIDES[modality]
    if is_picture(path):
        return ("vision",)
    streams = find_streams(path)
    there = {"audio": streams.sound, "vision": streams.picture}
    return tuple(side for side in SIDES["video"] if there[side] and side in encoder.layers) or SIDES["audio"]
