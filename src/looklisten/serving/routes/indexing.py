"""The routes `/v1/index`: what the index holds, and adding files to it."""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Query, UploadFile

from looklisten.errors import SourceError
from looklisten.search.indexing.index import index
from looklisten.search.options import IndexOptions
from looklisten.serving.decoding import FileReading, refusal_of
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
        with service.jobs.new_folder() as folder:
            async with service.files.open(file, None, path) as source:
                # The request ends before the job, and an upload with it.
                stored = await service.files.keep(source, folder)
            is_upload = path is None
            return service.jobs.start(
                "index", lambda job: _index(service, stored, is_upload, job), folder
            )

    return router


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _index(
    service: Service, file: RequestedFile, is_upload: bool, job: RunningJob
) -> dict[str, Any]:
    try:
        # Raises where the file exceeds a limit of the server, before `index` opens it.
        FileReading(file, service.options).facts()
        if not is_upload:
            return _added(service, file, job)
        with _kept_upload(service, file) as stored:
            return _added(service, stored, job)
    except SourceError as error:
        raise refusal_of(error, file) from None


@contextlib.contextmanager
def _kept_upload(service: Service, file: RequestedFile) -> Iterator[RequestedFile]:
    """The upload in the folder of uploads; it stays there if it is in the index after the block."""
    # An upload is found again by its name, and by its content if names are equal.
    target = service.uploads / _digest(file.path)[:16] / safe_name(file.name)
    if not target.exists():
        with atomic_write(target) as scratch:
            shutil.move(file.path, scratch)
    try:
        yield RequestedFile(target, file.name)
    except SourceError as error:
        raise refusal_of(error, RequestedFile(target, file.name)) from None
    finally:
        catalog = service.index_catalog()
        # A job that was canceled late, or that failed, may have added the file all the same.
        catalog.reload()
        if not catalog.has_file(target):
            target.unlink(missing_ok=True)
            # The folder stays if it holds the same content under another name.
            with contextlib.suppress(OSError):
                target.parent.rmdir()


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
    # Clients need not know where the server keeps its index.
    del values["db"]
    return values
