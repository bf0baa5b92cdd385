"""The routes `/v1/jobs`: long work, its progress, its end and the file that it made."""

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import FileResponse

from looklisten.serving.files_in_answers import RangedFile
from looklisten.serving.records import Job
from looklisten.serving.service import Service

JobId = Annotated[
    str, Path(description="As the request that began the job gave it.", max_length=64)
]


def job_routes(service: Service) -> APIRouter:
    """The routes of jobs."""
    router = APIRouter(tags=["jobs"])

    @router.get("/v1/jobs/{job}")
    def show_job(job: JobId) -> Job:
        """How far a job is."""
        return service.jobs.get(job).record()

    @router.delete("/v1/jobs/{job}")
    def cancel_job(job: JobId) -> Job:
        """Cancel a job, or forget one that is over, with its file."""
        return service.jobs.cancel(job)

    @router.get(
        "/v1/jobs/{job}/file",
        response_class=FileResponse,
        responses={200: {"content": {"video/mp4": {}}, "description": "The file, or a range."}},
    )
    def job_file(job: JobId) -> FileResponse:
        """The file that a job made; ranges of bytes are allowed."""
        return RangedFile(service.jobs.file_of(job), "video/mp4")

    return router
