"""A real server of `looklisten serve` in a thread of the tests, on a free port."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from looklisten.client import Client
from looklisten.model.networks import Run
from looklisten.serving.options import ServeOptions
from looklisten.serving.server import DrainingServer, make_server
from looklisten.serving.service import Service


@dataclass
class RunningServer:
    """A server that answers, and clients for it."""

    address: str
    service: Service
    server: DrainingServer
    http: httpx.Client
    client: Client

    @property
    def port(self) -> int:
        return httpx.URL(self.address).port


@contextlib.contextmanager
def running_server(run: Run, db: Path | None = None, **options) -> Iterator[RunningServer]:
    """A server with these options; it has ended after the block."""
    service = Service(run, db, ServeOptions(port=0, **options))
    is_up = threading.Event()
    addresses = []

    def announce(address: str) -> None:
        addresses.append(address)
        is_up.set()

    server = make_server(service, announce)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    assert is_up.wait(30)
    address = addresses[0].rstrip("/")
    with httpx.Client(base_url=address, timeout=60) as http, Client(address) as client:
        yield RunningServer(address, service, server, http, client)
    server.handle_exit(15, None)
    thread.join(20)
    assert not thread.is_alive()
