"""What the server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
METRICS_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters of one server; a registry of its own, so that several can live in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "looklisten_requests",
            "Requests that were answered.",
            ("route", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "looklisten_request_seconds",
            "Time from the head of a request to the end of its answer.",
            ("route",),
            buckets=SECONDS_BUCKETS,
            registry=self._registry,
        )
        self.batch_rows = Histogram(
            "looklisten_batch_rows",
            "Windows or frames that were computed together.",
            buckets=ROWS_BUCKETS,
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "looklisten_requests_in_flight",
            "Requests that are being answered.",
            registry=self._registry,
        )
        self.waiting = Gauge(
            "looklisten_queue_length",
            "Requests that wait for a batch.",
            registry=self._registry,
        )
        self.jobs = Gauge(
            "looklisten_jobs_unfinished", "Jobs that wait or run.", registry=self._registry
        )

    def text(self) -> bytes:
        """All metrics in the format of Prometheus."""
        return generate_latest(self._registry)
