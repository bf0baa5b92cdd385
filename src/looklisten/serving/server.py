"""Runs the application until a signal comes, then ends what is running.

On SIGTERM or Ctrl-C new requests are refused with 503, running ones and jobs get
`shutdown_seconds`, and the process exits with 0. A second signal ends it at once.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
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
    # It logs each damaged body, which the client hears of.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
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
    asyncio.run(make_server(service, announce).serve())


def read_token(options: ServeOptions) -> str | None:
    """The token of the file, or of the environment. Raises ConfigError for an empty file."""
    if options.token_file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    token = Path(options.token_file).read_text(encoding="utf-8").strip()
    if not token:
        raise ConfigError(f"the file {printable(options.token_file)} holds no token")
    return token
