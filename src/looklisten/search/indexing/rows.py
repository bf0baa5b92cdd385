"""What was read of one source -> the rows of its moments. Knows no store."""

from collections.abc import Iterator

from looklisten.data.sources import Source
from looklisten.search.indexing.index_folder import SourceNames
from looklisten.search.indexing.source_reader import ReadSource
from looklisten.search.moments import IndexedMoment, moment_id


def names_of_source(source: Source) -> SourceNames:
    """The label and the video id that the inputs give a source."""
    return SourceNames("|".join(source.labels) or None, source.video_id or source.path)


def rows_of_source(
    name: str, digest: str, source: Source, content: ReadSource
) -> Iterator[IndexedMoment]:
    """A row for each moment of a source with this name in the index."""
    names = names_of_source(source)
    for moment in content.moments:
        tags: dict[str, float] = {}
        for encoded in (moment.sound, moment.frame):
            tags |= encoded.tags if encoded else {}
        yield IndexedMoment(
            moment_id=moment_id(digest, moment.seconds),
            source=name,
            source_digest=digest,
            video_id=names.video_id,
            seconds=moment.seconds,
            thumbnail=moment.thumbnail,
            marks=moment.marks,
            label=names.label,
            tags=tags,
            vision=moment.frame.vector if moment.frame else None,
            audio=moment.sound.vector if moment.sound else None,
        )
