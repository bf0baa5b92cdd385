"""The routes `/v1/index`: what the index holds, and adding files to it."""

import asyncio
import hashlib
import shutil
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Query, UploadFile

from looklisten.errors import SourceError
from looklisten.search.indexing.index import index
from looklisten.search.options import IndexOptions
from looklisten.serving.decoding import Watch, refusal_of
from looklisten.serving.jobs import RunningJob
from looklisten.serving.records import IndexReply, Job
from looklisten.serving.requested_files import RequestedFile, safe_name
from looklisten.serving.routes.fields import RootPath
from looklisten.serving.service import Service
from looklisten.system.files import atomic_write

MOST_LISTED = 1000


def index_routes(service: Service) -> APIRouter:
    """The routes of the index."""
    router = APIRouter(tags=["index"])

    @router.get("/v1/index")
    def list_index(
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
    ) -> IndexReply:
        """What the index holds, and some of its files in the order of their names."""
        return service.index_catalog().listing(offset, limit)

    @router.post("/v1/index", status_code=202)
    async def add_to_index(
        file: Annotated[
            UploadFile | None, File(description="A sound, a picture or a video.")
        ] = None,
        path: RootPath = None,
    ) -> Job:
        """Add a file to the index, as a job. The server keeps an upload beside its index."""
        service.index_catalog()
        service.jobs.check_room()
        async with service.files.open(file, None, path) as source:
            # An upload is found again by its name, and by its content if names are equal.
            stored = source if path is not None else await _keep(service, source)
        return service.jobs.start("index", lambda job: _index(service, stored, job))

    return router


async def _keep(service: Service, source: RequestedFile) -> RequestedFile:
    """Move an upload to the folder of uploads."""
    digest = await asyncio.to_thread(_digest, source.path)
    target = service.uploads / digest[:16] / safe_name(source.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(_copy_file, source.path, target)
    return RequestedFile(target, source.name)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy_file(source: Path, target: Path) -> None:
    with atomic_write(target) as scratch:
        shutil.copyfile(source, scratch)


def _index(service: Service, file: RequestedFile, job: RunningJob) -> dict[str, Any]:
    try:
        Watch(file, service.options).facts()
        return _added(service, file, job)
    except BaseException as error:
        # What is not in the index is not kept, also of a job that was canceled.
        if file.path.is_relative_to(service.uploads):
            file.path.unlink(missing_ok=True)
        if isinstance(error, SourceError):
            raise refusal_of(error, file) from None
        raise


def _added(service: Service, file: RequestedFile, job: RunningJob) -> dict[str, Any]:
    """What adding a file to the index gave. Raises SourceError where it failed."""
    catalog = service.index_catalog()
    options = IndexOptions(
        every_seconds=catalog.index.every_seconds,
        stall_seconds=service.options.stall_seconds,
        memory_megabytes=service.options.memory_megabytes,
    )
    result = index(
        [file.path],
        catalog.db,
        service.run,
        options,
        progress=job.progress,
        make_encoder=service.moment_encoder,
    )
    if not (result.indexed or result.unchanged or result.copies):
        raise SourceError(f"{file.path} cannot be indexed; failures.jsonl of the index says why")
    catalog.reload()
    values = result.as_dict()
    # A path of the server.
    del values["db"]
    return values
