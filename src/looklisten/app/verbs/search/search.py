"""The verb `search`: a sound, a picture, a video, a tag or a text -> the moments most like it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from looklisten.app.command_line import (
    NETWORK_HELP,
    DeviceName,
    UsageError,
    check_writable_file,
)
from looklisten.app.output import Output
from looklisten.search.options import SearchOptions

_DEFAULTS = SearchOptions()
TAGS_OF_ROW = 3
SOURCE_LETTERS = 28
"""A longer path loses its first folders on a terminal."""


def run_search(
    query: Annotated[Positional[str | None], tyro.conf.arg(metavar="QUERY")] = None,
    /,
    db: Annotated[Path, tyro.conf.arg(metavar="DB")] = Path("index"),
    tag: str | None = None,
    text: str | None = None,
    count: Annotated[int, tyro.conf.arg(name="k", aliases=["-k"])] = 10,
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    checkpoint: Annotated[str | None, tyro.conf.arg(help=NETWORK_HELP)] = None,
    device: DeviceName = "auto",
    options: Annotated[SearchOptions, tyro.conf.arg(name="")] = _DEFAULTS,
) -> Output:
    """Find the moments of an index that sound or look like a query, or say that there are none.

    Args:
        query: A sound, a picture or a video, or FILE@SECONDS for one second of it.
        db: Folder that `index` wrote.
        tag: Instead of a query, the name of a class, such as "Dog".
        text: Instead of a query, words such as "a dog barks", for an index of a model that has
            vectors of texts.
        count: Scenes to show at most.
        out: Also write a page, one HTML file, whose players jump to the moments.
        checkpoint: The network that made the index; by default the one that it names.
    """
    from looklisten.search.finding.searching import open_index

    if sum(each is not None for each in (query, tag, text)) != 1:
        raise UsageError(
            "search needs one query: looklisten search QUERY --db DB, --tag NAME or --text WORDS"
        )
    if out is not None:
        check_writable_file(out)
    with open_index(db, checkpoint, device) as index:
        hits = index.search(query, tag, count, options, text)
        values = hits.as_dict()
        values["hits"] = [_row(scene) for scene in hits.scenes]
        values["nearest"] = [_row(scene) for scene in hits.nearest]
        if out is not None:
            from looklisten.app.pages.hits_page import write_hits_page

            values |= write_hits_page(out, hits, index)
    terminal_values = values | {
        "hits": [_shown_row(scene) for scene in hits.scenes],
        "nearest": [_shown_row(scene) for scene in hits.nearest],
    }
    return Output(values, message=hits.reason, terminal_values=terminal_values)


def _row(scene: Any) -> dict[str, Any]:
    """A scene as one line of a table."""
    values = asdict(scene)
    names = sorted(scene.tags, key=scene.tags.get, reverse=True)
    columns = ("score", "source", "seconds", "start_seconds", "end_seconds", "matched", "label")
    return {name: values[name] for name in columns} | {"tags": "; ".join(names[:TAGS_OF_ROW])}


def _shown_row(scene: Any) -> dict[str, Any]:
    """A scene as one line of a terminal, where the columns that say least are left out."""
    values = _row(scene)
    row = {
        "score": scene.score,
        "source": shown_source(scene.source),
        "at": scene.seconds,
        "scene": f"{scene.start_seconds:g} – {scene.end_seconds:g}",
        "matched": scene.matched,
    }
    if scene.label is not None:
        row["label"] = scene.label
    return row | {"tags": values["tags"]}


def shown_source(source: str) -> str:
    """A path from the current folder, or its last folders and its name, which is always whole."""
    path = Path(source)
    if path.is_relative_to(Path.cwd()):
        source = path.relative_to(Path.cwd()).as_posix()
    last_parts = source.split("/")
    while len(last_parts) > 1 and len("/".join(last_parts)) > SOURCE_LETTERS:
        del last_parts[0]
    shortened = "/".join(last_parts)
    return source if shortened == source else f"…/{shortened}"
