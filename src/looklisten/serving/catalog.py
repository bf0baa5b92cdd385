"""The index behind the server: its files by id, its scenes as records.

An id is the beginning of the SHA-256 of a file's content, so nobody learns a path of the server.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from looklisten.data.sources import is_remote
from looklisten.media.formats import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from looklisten.model.networks import Run
from looklisten.names import decode_name, encode_name, printable
from looklisten.search.filters import text_literal
from looklisten.search.finding.hits import Hit, Hits
from looklisten.search.finding.searching import Index, open_index
from looklisten.search.finding.thumbnail_maps import thumbnail_map
from looklisten.search.moments import IndexedMoment
from looklisten.search.opening import open_store
from looklisten.serving.records import FoundScene, IndexReply, MediaFile, MediaKind, SearchReply
from looklisten.serving.refusals import unknown_id

ID_DIGITS = 16
"""Digits of the SHA-256 in the id of a file."""
THUMBNAIL_DIGITS = 18
"""Digits of the SHA-256 in the id of a thumbnail: as many as in the name of its folder."""
THUMBNAIL_ID = re.compile(r"([0-9a-f]{2})([0-9a-f]{16})-([0-9]{9})")
"""The SHA-256, and the time in milliseconds: the parts of `THUMBNAIL_NAME`, without slashes."""
THUMBNAIL_NAME = re.compile(r"([0-9a-f]{2})/([0-9a-f]{16})/([0-9]{9})\.jpg")
"""The names that the index gives its thumbnails."""


class Catalog:
    """An open index, and the ids of its files. Several threads may use it at the same time."""

    def __init__(self, db: Path, run: Run) -> None:
        self.db = db
        self._run = run
        self.reload()

    def reload(self) -> None:
        """Open the index again, after files were added."""
        index = open_index(self.db, self._run)
        # Raises an error for the index of another network: now, not at the first search.
        _ = index.encoder
        with open_store(self.db) as store:
            digests = store.sources()
        # In the order of names, so that of two equal files always the same one is served.
        source_of: dict[str, str] = {}
        for source, digest in sorted(digests.items()):
            source_of.setdefault(digest[:ID_DIGITS], source)
        # The ids first: a request that still searches the old index finds its files in them.
        self._source_of = source_of
        self._digest_of = digests
        self.index: Index = index

    def path(self, media: str) -> Path:
        """The file of an id. Raises RefusedError where the index or the disk has none."""
        path = Path(decode_name(self.source(media)))
        # The file may have been removed since it was indexed.
        if not path.is_file():
            raise unknown_id("medium", media)
        return path

    def source(self, media: str) -> str:
        """The name of a file in the index, from its id. Raises RefusedError."""
        source = self._source_of.get(media)
        # This server fetches no address, so it serves no file of another machine.
        if source is None or is_remote(source):
            raise unknown_id("medium", media)
        return source

    def media_id(self, source: str) -> str | None:
        """The id of a file of the index; None for a file on another machine."""
        digest = self._digest_of.get(source)
        return None if digest is None or is_remote(source) else digest[:ID_DIGITS]

    def playable_sources(self) -> list[str]:
        """The names of all files of the index that are on this machine."""
        return sorted(name for name in self._source_of.values() if not is_remote(name))

    def has_file(self, path: Path) -> bool:
        """Whether the index holds this file."""
        return encode_name(os.path.abspath(path)) in self._digest_of  # noqa: PTH100

    def thumbnail_path(self, thumbnail: str) -> Path:
        """The JPEG file of a thumbnail's id. Raises RefusedError."""
        # Hexadecimal digits alone, so that no id can name another folder.
        match = THUMBNAIL_ID.fullmatch(thumbnail)
        if match is None:
            raise unknown_id("thumbnail", thumbnail)
        path = self.index.thumbnails / match[1] / match[2] / f"{match[3]}.jpg"
        if not path.is_file():
            raise unknown_id("thumbnail", thumbnail)
        return path

    def moment(self, media: str, seconds: float) -> IndexedMoment:
        """The moment of a file at a time. Raises RefusedError where there is none."""
        source = self.source(media)
        where = f"source = {text_literal(source)}"
        with open_store(self.db) as store:
            nearest = min(
                store.moments(where), key=lambda each: abs(each.seconds - seconds), default=None
            )
        if nearest is None or abs(nearest.seconds - seconds) > self.index.every_seconds:
            raise unknown_id("moment", f"{media} at {seconds:g} s")
        return nearest

    def sound_of_thumbnail(self, thumbnail: str) -> Float32[np.ndarray, " width"] | None:
        """The vector of the sound of a thumbnail's moment; None where there is none."""
        digest, _, milliseconds = thumbnail.partition("-")
        return self.moment(digest[:ID_DIGITS], int(milliseconds) / 1000).audio

    def map_of(self, path: Path, sound: Float32[np.ndarray, " width"]) -> list[list[float]] | None:
        """Where in a thumbnail a sound comes from; None for a network without such maps."""
        values = thumbnail_map(self.index.encoder, path.read_bytes(), sound)
        rows: list[list[float]] | None = None if values is None else values.round(4).tolist()
        return rows

    def listing(self, offset: int, limit: int) -> IndexReply:
        """What the index holds, and some of its files."""
        stats = self.index.stats()
        names = sorted(self._digest_of)[offset : offset + limit]
        files = [
            MediaFile(
                media=self.media_id(name),
                name=shown_name(name),
                kind=kind_of(name),
                thumbnail=self._middle_thumbnail(name),
            )
            for name in names
        ]
        return IndexReply(moments=stats.moments, sources=stats.sources, files=files)

    def _middle_thumbnail(self, source: str) -> str | None:
        """The id of the thumbnail in the middle of a file; None for a file without pictures."""
        digest = self._digest_of[source]
        folder = self.index.thumbnails / digest[:2] / digest[2:THUMBNAIL_DIGITS]
        pictures = sorted(folder.glob("*.jpg"))
        if not pictures:
            return None
        # Not the first one, which is often black.
        return f"{digest[:THUMBNAIL_DIGITS]}-{pictures[len(pictures) // 2].stem}"

    def reply(self, hits: Hits, name: str) -> SearchReply:
        """What a search found, without paths of the server."""
        return SearchReply(
            query=name,
            nothing_found=hits.nothing_found,
            threshold=hits.threshold,
            reason=hits.reason,
            hits=self._scenes(hits.scenes),
            nearest=self._scenes(hits.nearest),
        )

    def _scenes(self, scenes: Iterable[Hit]) -> list[FoundScene]:
        return [
            FoundScene(
                media=self.media_id(scene.source),
                seconds=scene.seconds,
                start_seconds=scene.start_seconds,
                end_seconds=scene.end_seconds,
                score=scene.score,
                similarity=scene.similarity,
                matched=scene.matched,
                label=scene.label,
                tags=scene.tags,
                marks=list(scene.marks),
                thumbnail=thumbnail_id(scene.thumbnail),
                name=shown_name(scene.source),
                kind=kind_of(scene.source),
            )
            for scene in scenes
        ]


def shown_name(source: str) -> str:
    """The name of a file for clients: without its folder."""
    return printable(Path(source).name)


def kind_of(name: str) -> MediaKind:
    """What a file is, by its suffix."""
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "audio" if suffix in AUDIO_SUFFIXES else "video"


def thumbnail_id(name: str | None) -> str | None:
    """The id of a thumbnail, from its name in the index."""
    match = THUMBNAIL_NAME.fullmatch(name or "")
    return f"{match[1]}{match[2]}-{match[3]}" if match else None
