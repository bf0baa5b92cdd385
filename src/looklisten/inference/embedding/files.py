"""Many files -> one file of vectors for each, in a folder of the same structure.

Files that are done are skipped, and failures are written to `failures.jsonl`.

Decisions:

- A file of vectors says which bytes it was made from (size, date and digest of its source), by
  which network and with which settings. It is done while all of that holds, even if the source
  moved to another folder.
- A network is known by the digest of its weights and settings. Its path says nothing: a run is
  trained further, a folder is moved.
- Files are decoded in another process. A file that ends this process twice, or makes it hang, is
  written down with its size and date. It is opened again only if it, or the version of the decoder,
  changes.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from looklisten.config import Side
from looklisten.data.batches import NOTABLE_LOSS_SECONDS
from looklisten.data.inputs import find_sources
from looklisten.data.sources import (
    Source,
    SourceList,
    check_no_stretches,
    is_remote,
    path_on_this_machine,
)
from looklisten.errors import ConfigError, DecoderLostError
from looklisten.inference.embedding.aligned import embed_aligned
from looklisten.inference.embedding.embed import embed_file
from looklisten.inference.embedding.failures import FailureLine, FailureLog, decoder_version
from looklisten.inference.embedding.fingerprints import SourceStamp, sha256_of_json
from looklisten.inference.embedding.options import EmbedFilesOptions, Modality
from looklisten.inference.embedding.output_files import (
    NETWORK_KEY,
    FolderFacts,
    check_folder,
    vector_path,
)
from looklisten.inference.embedding.records import Embeddings, in_large_blocks
from looklisten.inference.embedding.writers import (
    VectorFormat,
    VectorWriter,
    open_vector_file,
    read_provenance,
    vector_format_of,
)
from looklisten.inference.encoder import Encoder, NetworkEncoder, encoder_of
from looklisten.media.formats import MEDIA_SUFFIXES
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.media.isolation.parent import use_limits
from looklisten.media.isolation.readers import is_image, read_streams
from looklisten.model.l3net import L3Net
from looklisten.model.network_key import network_key
from looklisten.names import printable
from looklisten.system.files import MACHINE_ERRORS, remove_abandoned_scratch
from looklisten.system.progress import Progress, no_progress

_log = logging.getLogger("looklisten")

MIN_ROWS_PER_WRITE = 1024

MODALITY_SIDES: dict[Modality, tuple[Side, ...]] = {
    "audio": ("audio",),
    "image": ("vision",),
    "video": ("audio", "vision"),
}

State = Literal["done", "changed", "to do"]
"""Of a source: its vectors are there; they are there, but the source changed since; neither."""


@dataclass(frozen=True)
class _Job:
    """What is the same for all files of one call."""

    root: Path
    """The folder that paths of sources start from."""
    folder: Path
    options: EmbedFilesOptions
    encoder: Encoder
    vector_format: VectorFormat
    facts_sha256: str
    """Digest of everything that vectors depend on, except for the source."""

    def target(self, source: Source) -> Path:
        return vector_path(self.folder, source, self.vector_format.name)


def embed_files(
    inputs: Sequence[str | Path],
    model: L3Net | Encoder,
    folder: Path,
    options: EmbedFilesOptions,
    network_name: str = "",
    network_step: int | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Embed every file that `inputs` name; returns how many were embedded, skipped and failed.

    `inputs` are those of `prepare`, and sounds and images too. Files of vectors go into `folder`.
    There `embed.json` says how they are made, and `failures.jsonl` has a line for each file that
    failed or ended early. A second call embeds what is not done, what changed and what failed. A
    file that crashed the decoder is not opened again unless it changed.

    `network_name` identifies a network without weights of its own. `network_step` is the training
    step, for `embed.json`. Raises ConfigError if the folder holds vectors with other settings.
    """
    vector_format = vector_format_of(options.format)
    encoder = encoder_of(model, options.vectors.precision)
    sources = find_sources(inputs, suffixes=MEDIA_SUFFIXES)
    check_no_stretches("embed", sources.sources)
    facts = _folder_facts(encoder, options, network_name, network_step)
    facts_of_vectors = {name: value for name, value in facts.items() if name != "step"}
    facts_sha256 = sha256_of_json(facts_of_vectors)
    job = _Job(sources.root, folder, options, encoder, vector_format, facts_sha256)
    targets = {job.target(source) for source in sources.sources}
    check_folder(folder, facts, options.overwrite, targets)
    for parent in {target.parent for target in targets}:
        # A path may be too long; embedding its file will then give the error.
        with suppress(OSError):
            remove_abandoned_scratch(parent)
    states = {source.path: _state(job, source) for source in sources.sources}
    failures = _open_failure_log(job, sources, states)
    # A file that crashed the decoder may have vectors of an earlier run; then it is done.
    known_losses = {
        name: reason
        for name, reason in failures.decoder_losses().items()
        if states.get(name) != "done"
    }
    lost_seconds: dict[str, float] = {}
    counts = {
        "sources": len(sources.sources) + len(sources.unusable),
        "embedded": 0,
        "skipped": 0,
        "changed": 0,
        "vectors": 0,
    }
    limits = WorkerLimits(
        stall_seconds=options.stall_seconds, memory_megabytes=options.memory_megabytes
    )
    with use_limits(limits):
        for number, source in enumerate(sources.sources):
            state = states[source.path]
            if state == "done":
                counts["skipped"] += 1
            elif source.path not in known_losses:
                file_progress = partial(progress, number, len(sources.sources))
                result = _Attempt(job, source, file_progress).run()
                counts["vectors"] += result.vectors
                _note_losses(source, result.lost_seconds, lost_seconds)
                if result.vectors:
                    counts["embedded"] += 1
                    counts["changed"] += state == "changed"
                if result.problem:
                    failures.add(source.path, result.problem, result.decoder_loss)
            progress(number + 1, len(sources.sources))
    if known_losses:
        _log.warning(
            "%d files ended the decoder before and did not change, so they were not opened (%s); "
            "--retry-crashed opens them",
            len(known_losses),
            known_losses[min(known_losses)],
        )
    return counts | {
        "not_opened": len(known_losses),
        "failed": len(failures.lines),
        "lost_seconds": {reason: round(lost, 3) for reason, lost in lost_seconds.items()},
        "out": str(folder),
    }


def _note_losses(source: Source, lost: Mapping[str, float], total: dict[str, float]) -> None:
    """Add what decoding lost of a source to `total`, and say what is notable."""
    for reason, seconds in lost.items():
        total[reason] = total.get(reason, 0.0) + seconds
        if seconds >= NOTABLE_LOSS_SECONDS:
            _log.warning("%s: %.1f s are lost: %s", printable(source.path), seconds, reason)


def _folder_facts(
    encoder: Encoder, options: EmbedFilesOptions, network_name: str, network_step: int | None
) -> FolderFacts:
    """Everything that the vectors of a folder have in common."""
    vectors = options.vectors
    network = encoder.model if isinstance(encoder, NetworkEncoder) else encoder
    return {
        NETWORK_KEY: network_key(network, network_name),
        "step": network_step,
        "modality": options.modality,
        "align": options.align,
        "precision": vectors.precision,
        "layer": vectors.layer,
        "center": vectors.center,
        "normalize": vectors.normalize,
        "dense": vectors.dense,
        "hop_seconds": float(vectors.hop_seconds),
    }


def _state(job: _Job, source: Source) -> State:
    provenance = read_provenance(job.target(source), job.vector_format)
    is_other_kind = provenance.get("settings_sha256") != job.facts_sha256
    if not provenance or job.options.overwrite or is_other_kind:
        return "to do"
    is_same = _is_unchanged(job.root, source, SourceStamp.read(provenance))
    return "done" if is_same else "changed"


def _is_unchanged(root: Path, source: Source, before: SourceStamp) -> bool:
    if is_remote(source.path):
        # Asking would take one request for each file, so the size in the listing decides.
        return source.bytes is None or before.source_bytes in (None, source.bytes)
    return before.is_still(source.local_path(root))


def _open_failure_log(job: _Job, sources: SourceList, states: Mapping[str, State]) -> FailureLog:
    """The log with the lines of earlier runs that still hold, and a line for each missing file."""
    by_path = {source.path: source for source in sources.sources}

    def still_holds(line: FailureLine) -> bool:
        if states.get(line["source"]) == "done":
            return True
        return _still_crashes(job, by_path.get(line["source"]), line)

    failures = FailureLog(job.folder / "failures.jsonl")
    failures.keep_lines(still_holds)
    for name, reason in sources.unusable.items():
        failures.add(name, reason)
    return failures


def _still_crashes(job: _Job, source: Source | None, line: FailureLine) -> bool:
    """Whether a line of an earlier run says that the file, as it is now, ends the decoder."""
    if job.options.retry_crashed or job.options.overwrite or source is None:
        return False
    # Another version of the decoder may read the file.
    if not line.get("decoder_lost") or line.get("decoder") != decoder_version():
        return False
    return _is_unchanged(job.root, source, SourceStamp.read(line))


@dataclass(frozen=True)
class _Result:
    """What came of one file."""

    vectors: int = 0
    problem: str = ""
    """Why the file failed, or ended early; empty if it did not."""
    lost_seconds: Mapping[str, float] = field(default_factory=dict)
    """What decoding lost, by reason."""
    decoder_loss: SourceStamp | None = None
    """The stamp of a file that ended the decoder."""


@dataclass(frozen=True)
class _Attempt:
    """Embeds one file. A bad file fails alone; a full disk or a wrong setting stops all."""

    job: _Job
    source: Source
    progress: Callable[..., None]

    def run(self) -> _Result:
        stamp = SourceStamp(self.source.bytes)
        try:
            with path_on_this_machine(self.job.root, self.source) as path:
                stamp = self._stamp(path)
                return self._embed_with_retry(path, stamp)
        except ConfigError:
            raise
        except DecoderLostError as error:
            return _Result(problem=str(error), decoder_loss=stamp)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
                raise
            return _Result(problem=str(error) or type(error).__name__)

    def _stamp(self, path: Path) -> SourceStamp:
        if not is_remote(self.source.path):
            return SourceStamp.of(path)
        # The date of a copy says nothing about the remote file.
        return SourceStamp(SourceStamp.of(path, with_digest=False).source_bytes)

    def _embed_with_retry(self, path: Path, stamp: SourceStamp) -> _Result:
        try:
            return self._embed(path, stamp)
        except DecoderLostError as error:
            if error.hung:
                raise
            # After a first crash the file is tried again: the machine may have been short of
            # memory.
            return self._embed(path, stamp)

    def _embed(self, path: Path, stamp: SourceStamp) -> _Result:
        job = self.job
        provenance = {"settings_sha256": job.facts_sha256} | asdict(stamp)
        target = job.target(self.source)
        vectors = 0
        stop_reason = ""
        lost_seconds: dict[str, float] = {}
        with open_vector_file(target, job.vector_format, provenance) as writer:
            for block in _blocks(path, job, writer):
                # The name of a remote file, not of its copy.
                writer.write(replace(block, source=self.source.path))
                vectors += len(block)
                stop_reason = block.stop_reason or stop_reason
                # Both sides of a video may have lost the same stretch.
                lost_seconds |= block.lost_seconds
                self.progress(at=f"{block.start_seconds[-1] / 60:.0f} min")
        problem = f"{stop_reason}; what came before is embedded" if stop_reason else ""
        return _Result(vectors, problem, lost_seconds)


def _blocks(path: Path, job: _Job, writer: VectorWriter) -> Iterator[Embeddings]:
    """The vectors of one file, side after side."""
    options = job.options
    sides = _sides(path, job.encoder, options.modality)
    if options.align and len(sides) == 2:
        both = embed_aligned(path, job.encoder, options.vectors)
        writer.write_array("frame_seconds", both.frame_seconds)
        yield both.audio
        yield both.vision
        return
    for side in sides:
        blocks = embed_file(path, job.encoder, options.vectors, side)
        yield from in_large_blocks(blocks, MIN_ROWS_PER_WRITE)


def _sides(path: Path, encoder: Encoder, modality: Modality) -> tuple[Side, ...]:
    if modality != "auto":
        return MODALITY_SIDES[modality]
    if is_image(path):
        return ("vision",)
    streams = read_streams(path)
    sides: list[Side] = []
    if streams.has_audio and "audio" in encoder.layers:
        sides.append("audio")
    if streams.has_video and "vision" in encoder.layers:
        sides.append("vision")
    # A file that has neither gets the error for missing sound.
    return tuple(sides) or ("audio",)
