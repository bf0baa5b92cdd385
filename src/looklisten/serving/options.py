"""The choices of `serve`, as a record: the command line offers them and the library takes them.

Imports neither torch nor numpy, so that the help of the command line needs no second.
"""

from dataclasses import dataclass
from pathlib import Path

from looklisten.errors import OptionError
from looklisten.media.isolation.limits import WorkerLimits
from looklisten.option_checks import check_above_zero, check_at_least

MOST_PORT = 65_535
TOKEN_VARIABLE = "LOOKLISTEN_TOKEN"  # noqa: S105 (the name of a variable, not a secret)


@dataclass(frozen=True)
class ServeOptions:
    """The choices of `serve`: its address, its batches and its limits."""

    host: str = "127.0.0.1"
    """Address to listen on. 127.0.0.1 is this machine alone; 0.0.0.0 is every network."""
    port: int = 8080
    """Port to listen on; 0 takes a free one."""
    max_batch: int = 32
    """Windows or frames that are computed together at most."""
    max_wait_ms: float = 10.0
    """Time that a batch waits for more of them, in milliseconds, while other requests are read."""
    queue_size: int = 128
    """Requests that are accepted at once. One more is answered with 429."""
    decoders: int = 2
    """Files that are decoded at once, each in another process."""
    max_megabytes: float = 256.0
    """Size of an upload at most."""
    max_seconds: float = 600.0
    """Length of a sound or a video at most."""
    max_megapixels: float = 40.0
    """Size of a picture or of a frame at most."""
    max_streams: int = 16
    """Streams of a file at most."""
    requests_per_minute: int = 0
    """Requests of one client in a minute at most; 0 is no limit."""
    body_seconds: float = 60.0
    """Time that a client may take to send a request."""
    idle_seconds: int = 15
    """Time that a connection may stay open without a complete head of a request."""
    decode_seconds: float = 60.0
    """Time that decoding one file may take."""
    stall_seconds: float = 20.0
    """Give up a file if decoding does not advance by one second in this time."""
    memory_megabytes: int = WorkerLimits.memory_megabytes
    """Memory that decoding one file may take."""
    max_jobs: int = 8
    """Jobs that wait or run at most."""
    keep_jobs_seconds: float = 3600.0
    """Time that the result of a job is kept."""
    shutdown_seconds: float = 30.0
    """Time that running requests and jobs get to end after a SIGTERM."""
    allow_root: Path | None = None
    """Folder whose files a request may name by their path. Default: none, uploads only."""
    uploads: Path | None = None
    """Folder for the files that are uploaded into the index. Default: DB-uploads, beside DB."""
    token_file: Path | None = None
    """File with the token that requests must carry. Default: the variable LOOKLISTEN_TOKEN; without
    both, no token is asked for."""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which clients may call a server that listens on this machine alone, besides
    localhost; for a proxy in front of it."""

    def __post_init__(self) -> None:
        check_at_least(0, port=self.port, requests_per_minute=self.requests_per_minute)
        if self.port > MOST_PORT:
            raise OptionError(f"port {self.port} must be at most {MOST_PORT}", "port")
        check_at_least(0, max_wait_ms=self.max_wait_ms, shutdown_seconds=self.shutdown_seconds)
        check_at_least(
            1,
            max_batch=self.max_batch,
            queue_size=self.queue_size,
            decoders=self.decoders,
            max_streams=self.max_streams,
            memory_megabytes=self.memory_megabytes,
            max_jobs=self.max_jobs,
        )
        check_above_zero(
            max_megabytes=self.max_megabytes,
            max_seconds=self.max_seconds,
            max_megapixels=self.max_megapixels,
            body_seconds=self.body_seconds,
            idle_seconds=self.idle_seconds,
            decode_seconds=self.decode_seconds,
            stall_seconds=self.stall_seconds,
            keep_jobs_seconds=self.keep_jobs_seconds,
        )

    @property
    def max_bytes(self) -> int:
        """Size of the body of a request at most."""
        return int(self.max_megabytes * 1e6)
