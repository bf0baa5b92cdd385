"""The verb `export-index`: the moments of an index for other software."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from looklisten.app.output import Output
from looklisten.system.files import check_writable


def run_export_index(
    db: Annotated[Positional[Path], tyro.conf.arg(metavar="DB")],
    out: Annotated[Positional[Path], tyro.conf.arg(metavar="OUT")],
    /,
    to: Literal["parquet", "qdrant"] = "parquet",
) -> Output:
    """Write the moments of an index for other software: as Parquet, or as uploads to Qdrant.

    Args:
        db: Folder that `index` wrote.
        out: File to write; with qdrant, a folder.
        to: parquet (one file) or qdrant (bodies of requests to its REST interface).
    """
    from looklisten.search.opening import open_store

    check_writable(out.parent)
    with open_store(db) as store:
        store.export(out, to)
        stats = store.stats()
    return Output(
        {
            "out": str(out),
            "moments": stats.moments,
            "vision_vectors": stats.vision_vectors,
            "audio_vectors": stats.audio_vectors,
            "width": stats.width,
        }
    )
