"""The route `/v1/units`: what single units of the towers respond to, in the index."""

from typing import Any

from fastapi import APIRouter

from looklisten.serving.jobs import RunningJob
from looklisten.serving.records import Job
from looklisten.serving.service import Service
from looklisten.serving.units import units_of_index


def unit_routes(service: Service) -> APIRouter:
    """The route of units."""
    router = APIRouter(tags=["index"])

    @router.post("/v1/units", status_code=202)
    async def show_units() -> Job:
        """For units of both towers the moments of the index that activate them most, as a job.

        The result of the job is a record `UnitsReply`.
        """
        catalog = service.index_catalog()

        def work(job: RunningJob) -> dict[str, Any]:
            reply = units_of_index(
                catalog, service.network, service.batcher, service.decoders, job.progress
            )
            return reply.model_dump()

        return service.jobs.start("units", work)

    return router
