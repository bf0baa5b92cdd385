"""Runs the application until a signal comes, then ends what is running.

On SIGTERM or Ctrl-C new requests are refused with 503, running ones and jobs get
`shutdown_seconds`, and the process exits with 0. A second signal ends it at once.
"""

import asyncio
import logging
import os
import resource
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from looklisten.errors import ConfigError
from looklisten.names import printable
from looklisten.serving.application import build_app
from looklisten.serving.gate import is_loopback
from looklisten.serving.options import TOKEN_VARIABLE, ServeOptions
from looklisten.serving.service import Service

MAX_HEADER_BYTES = 16_384
MAX_CONNECTIONS = 1024
ANSWER_SECONDS = 60
"""How long a client may read nothing of its answer."""
MOST_OPEN_FILES = 4096
"""Connections and uploads need file descriptors; many systems give a process 1,024 of them."""

Announce = Callable[[str], None]
"""Called with the address of the page as soon as the server listens."""

_log = logging.getLogger("looklisten")


class DrainingServer(uvicorn.Server):
    """A server that finishes before it exits."""

    def __init__(self, config: uvicorn.Config, service: Service, announce: Announce) -> None:
        super().__init__(config)
        self._service = service
        self._announce = announce
        self._end = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started:
            # A port of 0 becomes a free one only now.
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._announce(f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Called on a signal."""
        # A second signal means that the user does not want to wait.
        if self._service.is_stopping:
            self.force_exit = True
            self.should_exit = True
            return
        self._service.is_stopping = True
        self._end = time.monotonic() + self._service.options.shutdown_seconds

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends the server."""
        service = self._service
        if service.is_stopping:
            # Jobs count too: their clients ask for the result later.
            is_idle = not service.requests_in_flight and not service.jobs.unfinished
            self.should_exit = self.should_exit or is_idle or time.monotonic() > self._end
        return await super().on_tick(counter)


class TimedProtocol(H11Protocol):
    """HTTP/1.1 that closes connections on which no request comes."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        # Only Linux has it: a client that does not read its answer is left after this time.
        if hasattr(socket, "TCP_USER_TIMEOUT") and connection.family != socket.AF_UNIX:
            milliseconds = 1000 * ANSWER_SECONDS
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        # Uvicorn has a time limit between requests, and none before the first.
        self._head_timer = self.loop.call_later(
            self.timeout_keep_alive, self._close_without_request
        )

    def connection_lost(self, exc: Exception | None) -> None:
        # Else the timer would keep the connection in memory.
        self._head_timer.cancel()
        super().connection_lost(exc)

    def _close_without_request(self) -> None:
        # The headers of the last request; None before the first.
        has_request = getattr(self, "headers", None) is not None
        if not has_request and not self.transport.is_closing():
            self.transport.close()


def make_server(service: Service, announce: Announce) -> DrainingServer:
    """The server of a service; its method `serve` runs it."""
    options = service.options
    token = read_token(options)
    if token is None and not is_loopback(options.host):
        _log.warning("everybody who reaches %s may use this server; set a token", options.host)
    # They log each damaged request, which the client hears of.
    for name in ("python_multipart", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.ERROR)
    config = uvicorn.Config(
        build_app(service, token),
        host=options.host,
        port=options.port,
        http=TimedProtocol,
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=options.idle_seconds,
        timeout_graceful_shutdown=2,
    )
    return DrainingServer(config, service, announce)


def run_server(service: Service, announce: Announce) -> None:
    """Answer requests until a signal comes."""
    allow_open_files()
    with listening_socket(service.options) as listening:
        asyncio.run(make_server(service, announce).serve([listening]))


def listening_socket(options: ServeOptions) -> socket.socket:
    """A socket at the address of the options. Raises ConfigError where that is not possible."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family, backlog=2048)
    except OSError as error:
        # The number of the system says nothing to people.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigError(
            f"the server cannot listen at {printable(options.host)}, port {options.port}: "
            f"{reason}; choose another one with --port or --host"
        ) from None


def allow_open_files() -> None:
    """Let this process open `MOST_OPEN_FILES` at once, where its limit may be raised so far."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MOST_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def read_token(options: ServeOptions) -> str | None:
    """The token of the file, or of the environment. Raises ConfigError for an unusable one."""
    if options.token_file is None:
        origin = f"the variable {TOKEN_VARIABLE}"
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            return None
    else:
        origin = f"the file {printable(options.token_file)}"
        try:
            token = options.token_file.read_bytes().decode("latin-1").strip()
        except OSError as error:
            raise ConfigError(f"{origin} cannot be read: {error.strerror}") from None
    # A header can hold nothing else.
    if not (token and token.isascii() and token.isprintable()):
        raise ConfigError(f"{origin} must hold one line of ASCII letters, digits and signs")
    return token
