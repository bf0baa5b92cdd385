"""Many files -> a file of vectors for each, in a folder of the same structure. What is done is
left; what fails is written down.

Decisions:

- A file of vectors says of which bytes it was made (size, date and digest of its source) and by
  which network and choices. It is done when all of that still holds, whatever folder the source
  lies in now.
- A network is known by the digest of its weights and settings. A path says nothing: a run is
  trained on, a folder is moved.
- Files are decoded in another process. What ends that process twice, or makes it hang, is written
  down with its size and date, and not opened again until it, or the decoder's version, changes.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from looklisten.config import Side
from looklisten.data.inputs import find_sources
from looklisten.data.sources import Source, open_source
from looklisten.data.worker import MACHINE_ERRORS
from looklisten.errors import ConfigError, DecoderLostError
from looklisten.inference.embedding.fingerprints import SourceStamp, network_sha256, sha256_of_json
from looklisten.inference.embedding.inputs import aligned, parts
from looklisten.inference.embedding.options import Modality, Precision
from looklisten.inference.embedding.records import Embeddings
from looklisten.inference.embedding.stream import How
from looklisten.inference.embedding.writers import (
    FORMATS,
    Format,
    VectorFile,
    gathered,
    read_made,
    vector_file,
)
from looklisten.inference.encoder import Encoder, encoder_of
from looklisten.media.formats import MEDIA_SUFFIXES
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.isolation.parent import use_limits
from looklisten.media.isolation.readers import is_image, read_streams
from looklisten.model.l3net import L3Net
from looklisten.system.files import remove_abandoned_scratch, write_json
from looklisten.system.progress import Progress, no_progress

log = logging.getLogger(__name__)

SIDES: dict[Modality, tuple[Side, ...]] = {
    "audio": ("audio",),
    "image": ("vision",),
    "video": ("audio", "vision"),
}


MOST_NAME_BYTES = 255
"""A longer name of a file or folder is refused by the file systems in use."""

NAME_DIGITS = 16
"""Hexadecimal digits of the digest that stands for the end of a name that is too long."""


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
    """What the network is called; only one that holds no weights is known by it."""
    precision: Precision = "float32"
    step: int | None = None
    """The training step of the network, for `embed.json`."""
    again: bool = False
    """Open files again that crashed the decoder before."""
    limits: WorkerLimits = field(default_factory=WorkerLimits)
    """What a file may cost."""

    def target(self, source: Source) -> Path:
        """The whole name of the source stays in the name, so that `a.wav` and `a.mp3` are two."""
        *folders, name = source.path.replace("://", "/").split("/")
        return self.out.joinpath(*map(fitting_name, folders), fitting_name(name, f".{self.format}"))

    def about(self, encoder: Encoder) -> dict[str, Any]:
        """Everything that the vectors of a folder have in common."""
        how = {name: getattr(self.how, name) for name in ("layer", "center", "normalize", "dense")}
        same = {"modality": self.modality, "align": self.align, "precision": self.precision}
        network = {WEIGHTS: network_sha256(encoder, self.network), "step": self.step}
        return network | same | how | {"hop_seconds": float(self.how.hop_seconds)}


WEIGHTS = "network_sha256"
"""The field of `embed.json` that says which network made the vectors."""


def fitting_name(name: str, suffix: str = "") -> str:
    """`name + suffix`, its end replaced by a digest of all of it where a file system would refuse
    it as too long.
    """
    whole = _bytes(name + suffix)
    if len(whole) <= MOST_NAME_BYTES:
        return name + suffix
    end = f"~{hashlib.sha256(whole).hexdigest()[:NAME_DIGITS]}{suffix}"
    begin = _bytes(name)[: MOST_NAME_BYTES - len(_bytes(end))]
    return begin.decode("utf-8", "ignore") + end


def _bytes(name: str) -> bytes:
    """A name as a file system has it; bytes that are no UTF-8 are what they were."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace")


def embed_files(
    inputs: Sequence[str | Path],
    model: L3Net | Encoder,
    plan: Plan,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Vectors of every file that `inputs` name (as for `prepare`, and sounds and pictures too), in
    files below `plan.out`.

    `embed.json` there says how they were made, `failures.jsonl` has a line for each file that
    failed or broke off. Run again it does what is not done, makes anew what changed and tries anew
    what failed. A file that crashed the decoder is not opened again unless it changed. Raises
    ConfigError when the folder holds vectors that were made otherwise.
    """
    encoder = encoder_of(model, plan.precision)
    sources = find_sources(inputs, suffixes=MEDIA_SUFFIXES)
    if any(
        source.start_seconds is not None or source.stop_seconds is not None
        for source in sources.sources
    ):
        raise ConfigError(
            "embed takes whole files, and this table names stretches; remove start_seconds and stop_seconds"
        )
    about = plan.about(encoder)
    _agree(plan, about, {plan.target(source) for source in sources.sources})
    for folder in {plan.target(source).parent for source in sources.sources}:
        with suppress(OSError):  # such as a path that is too long; the file itself will say so
            remove_abandoned_scratch(folder)
    plan_sha256 = sha256_of_json({name: value for name, value in about.items() if name != "step"})
    states = {
        source.path: _state(sources.root, source, plan, plan_sha256) for source in sources.sources
    }
    failures = _Failures(plan.out / "failures.jsonl")
    by_path = {source.path: source for source in sources.sources}
    failures.keep(
        lambda line: (
            states.get(line["source"]) == "done" or _is_known(line, sources.root, by_path, plan)
        )
    )
    for name, reason in sources.unusable.items():
        failures.add(name, reason)
    counts = {
        "sources": len(sources.sources) + len(sources.unusable),
        "embedded": 0,
        "skipped": 0,
        "changed": 0,
        "vectors": 0,
    }
    # Where vectors of an earlier run are there, nothing is left to do.
    known = {
        name: why for name, why in failures.lost_sources().items() if states.get(name) != "done"
    }
    with use_limits(plan.limits):
        for done, source in enumerate(sources.sources):
            if states[source.path] == "done":
                counts["skipped"] += 1
            elif source.path not in known:
                attempt = _Attempt(sources.root, source, encoder, plan, plan_sha256)
                made, reason, lost = attempt.run(partial(progress, done, len(sources.sources)))
                counts["embedded"] += made > 0
                counts["changed"] += made > 0 and states[source.path] == "changed"
                counts["vectors"] += made
                if reason:
                    failures.add(source.path, reason, lost)
            progress(done + 1, len(sources.sources))
    if known:
        first = known[min(known)]
        log.warning(
            "%d files ended the decoder before and did not change, so they were not opened (%s); --again opens them",
            len(known),
            first,
        )
    return counts | {"not_opened": len(known), "failed": len(failures.lines), "out": str(plan.out)}


State = Literal["done", "changed", "to do"]


def _state(root: Path, source: Source, plan: Plan, plan_sha256: str) -> State:
    """Whether the vectors of a source are there, made of its very bytes in the very way that is
    asked for.
    """
    made = read_made(plan.target(source), plan.format)
    if not made:
        return "to do"
    if plan.overwrite or made.get("plan_sha256") != plan_sha256:
        return "to do"
    return "done" if _is_unchanged(root, source, SourceStamp.read(made)) else "changed"


def _is_unchanged(root: Path, source: Source, before: SourceStamp) -> bool:
    if (
        "://" in source.path
    ):  # asking would cost a request a file; what the list of files says is taken
        return source.bytes is None or before.source_bytes in (None, source.bytes)
    return before.is_still(source.local_path(root))


def _agree(plan: Plan, about: dict[str, Any], targets: Set[Path]) -> None:
    """Write down how the vectors of the folder are made, or see that those in it were made so."""
    path = plan.out / "embed.json"
    if path.exists():
        advice = "take another folder, or --overwrite"
        before = _read_about(path)
        if WEIGHTS not in before and not plan.overwrite:
            raise ConfigError(
                f"{path} does not say which weights made the vectors of {plan.out}, as older versions did not; {advice}"
            )
        other = [
            _difference(name, before.get(name), value)
            for name, value in about.items()
            if name != "step" and before.get(name) != value
        ]
        if other and not plan.overwrite:
            steps = (
                f" (step {before['step']}, now step {about['step']})"
                if before.get("step") != about["step"]
                else ""
            )
            raise ConfigError(
                f"{plan.out} holds vectors made otherwise{steps}: {', '.join(other)}; {advice}"
            )
        if other:
            _check_that_all_are_renewed(plan, targets)
    write_json(path, about)


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _difference(name: str, before: Any, now: Any) -> str:
    if name == WEIGHTS:
        return f"other weights ({str(before)[:12]} instead of {str(now)[:12]})"
    return f"{name} {before} instead of {now}"


def _check_that_all_are_renewed(plan: Plan, targets: Set[Path]) -> None:
    """Raise ConfigError when overwriting would leave vectors of two kinds in the folder."""
    about = {plan.out / name for name in ("embed.json", "failures.jsonl")}
    written = (path for format in FORMATS for path in sorted(plan.out.rglob(f"*.{format}")))
    left = [
        path
        for path in written
        if path not in targets and path not in about and ".aside-" not in str(path)
    ]
    if left:
        raise ConfigError(
            f"{plan.out} holds {len(left)} files of vectors made otherwise that --overwrite would not renew, since their sources are not "
            f"among the inputs, such as {left[0]}; delete them, or take another folder"
        )


class _Failures:
    """`failures.jsonl`: a line for each file, written as soon as it is known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lines: list[dict[str, Any]] = []

    def keep(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Take over the lines of an earlier run that still hold; the file has these alone then."""
        if self._path.exists():
            before = self._path.read_text(encoding="utf-8", errors="backslashreplace").splitlines()
            self.lines = [line for line in filter(None, map(_line, before)) if wanted(line)]
        self._path.write_text("", encoding="utf-8")
        for line in self.lines:
            self._write(line)

    def lost_sources(self) -> dict[str, str]:
        """Files that ended the decoder, each with what it did."""
        return {line["source"]: line["reason"] for line in self.lines if line.get("decoder_lost")}

    def add(self, source: str, reason: str, lost: SourceStamp | None = None) -> None:
        """`lost`: the bytes that ended the decoder, if they did."""
        stamp = {"decoder_lost": True, "decoder": decoder_version(), **asdict(lost)} if lost else {}
        self.lines.append({"source": source, "reason": reason} | stamp)
        self._write(self.lines[-1])

    def _write(self, line: dict[str, Any]) -> None:
        # What no UTF-8 can say is written as \udcXX, which is how JSON says it.
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _line(text: str) -> dict[str, Any] | None:
    """A line of `failures.jsonl`; None for one that a killed run left unfinished."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "source" in line else None


def _is_known(line: dict[str, Any], root: Path, by_path: Mapping[str, Source], plan: Plan) -> bool:
    """Whether a line of an earlier run says that a source, as it is now, ends the decoder."""
    if (
        not line.get("decoder_lost")
        or line.get("decoder") != decoder_version()
        or plan.again
        or plan.overwrite
    ):
        return False
    source = by_path.get(line["source"])
    return source is not None and _is_unchanged(root, source, SourceStamp.read(line))


def decoder_version() -> str:
    """Another version may read what this one crashes over."""
    return f"PyAV {version('av')}, Pillow {version('pillow')}"


@dataclass(frozen=True)
class _Attempt:
    """One file -> its vectors. A bad file costs itself alone; a full disk or a wrong setting stops
    all.
    """

    root: Path
    source: Source
    encoder: Encoder
    plan: Plan
    plan_sha256: str

    def run(self, tell: Callable[..., None]) -> tuple[int, str, SourceStamp | None]:
        """How many vectors were written, what was wrong, and the bytes that ended the decoder, if
        they did.
        """
        stamp = SourceStamp(self.source.bytes)
        try:
            with _at_hand(self.root, self.source) as path:
                stamp = (
                    SourceStamp.of(path)
                    if "://" not in self.source.path
                    else SourceStamp(SourceStamp.of(path, False).source_bytes)
                )
                return (*self._twice(path, stamp, tell), None)
        except ConfigError:
            raise
        except DecoderLostError as error:
            return 0, str(error), stamp
        except Exception as error:
            if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
                raise
            return 0, str(error) or type(error).__name__, None

    def _twice(self, path: Path, stamp: SourceStamp, tell: Callable[..., None]) -> tuple[int, str]:
        """A first crash is forgiven: the machine may have been short of memory."""
        try:
            return self._once(path, stamp, tell)
        except DecoderLostError as error:
            if error.hung:
                raise
            return self._once(path, stamp, tell)

    def _once(self, path: Path, stamp: SourceStamp, tell: Callable[..., None]) -> tuple[int, str]:
        made = {"plan_sha256": self.plan_sha256} | asdict(stamp)
        with vector_file(self.plan.target(self.source), self.plan.format, made) as file:
            return _embed(path, self.source.path, self.encoder, self.plan, file, tell)


@contextmanager
def _at_hand(root: Path, source: Source) -> Iterator[Path]:
    """A local path to the source; a remote one is fetched, and removed after."""
    if "://" not in source.path:
        yield source.local_path(root)
        return
    with TemporaryDirectory(prefix="looklisten-") as scratch:
        path = Path(scratch) / Path(source.path.partition("?")[0]).name
        with open_source(root, source) as remote, path.open("wb") as here:
            shutil.copyfileobj(remote, here, 2**20)
        yield path


def _embed(
    path: Path, name: str, encoder: Encoder, plan: Plan, file: VectorFile, tell: Callable[..., None]
) -> tuple[int, str]:
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
    if is_image(path):
        return ("vision",)
    streams = read_streams(path)
    there = {"audio": streams.has_audio, "vision": streams.has_video}
    return (
        tuple(side for side in SIDES["video"] if there[side] and side in encoder.layers)
        or SIDES["audio"]
    )
