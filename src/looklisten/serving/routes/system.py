"""The routes about the server itself: the network, its health, and what it counts."""

from fastapi import APIRouter, Response

from looklisten.serving.metrics import METRICS_TYPE
from looklisten.serving.records import HealthReply, ModelReply
from looklisten.serving.service import Service


def system_routes(service: Service) -> APIRouter:
    """The routes about the server."""
    router = APIRouter(tags=["server"])

    @router.get("/v1/model")
    def model() -> ModelReply:
        """The network, what it can do, and the limits of this server."""
        return service.facts()

    @router.get("/healthz")
    def health() -> HealthReply:
        """Whether the process lives."""
        return HealthReply(status="ok")

    @router.get("/readyz", responses={503: {"model": HealthReply}})
    def ready(response: Response) -> HealthReply:
        """Whether the server takes requests; 503 while it stops."""
        if service.is_stopping:
            response.status_code = 503
            return HealthReply(status="stopping")
        return HealthReply(status="ok")

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "For Prometheus."}},
    )
    def metrics() -> Response:
        """What the server counts, for Prometheus."""
        counted = service.metrics
        counted.in_flight.set(service.requests_in_flight)
        counted.waiting.set(service.batcher.waiting)
        counted.jobs.set(service.jobs.unfinished)
        return Response(counted.text(), media_type=METRICS_TYPE)

    return router
