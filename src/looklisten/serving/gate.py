"""What every request passes before a route sees it: who may ask, how much, and how fast.

Plain ASGI, so that a body is counted while it comes and work stops when its client leaves.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from looklisten.serving.refusals import FAULT, RefusedError, busy, refusal_of_system
from looklisten.serving.service import Service

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; connect-src 'self'; font-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=()",
}
PUBLIC_PATHS = ("/healthz", "/readyz")
PROTECTED_PREFIXES = ("/v1/", "/metrics")
DISCARD_SECONDS = 2.0
"""How long the rest of a refused body is read: many clients send all of it before they read."""
MAX_PLAIN_BYTES = 4_000_000
"""Size of a body that is no multipart form: it is read into memory, and holds no file."""
MOST_CLIENTS = 10_000
"""With more clients, those that sent nothing for a minute are forgotten."""

_log = logging.getLogger("looklisten")


class Gate:
    """Checks each request, counts it and passes it to the application."""

    def __init__(self, app: ASGIApp, service: Service, token: str | None) -> None:
        self._app = app
        self._service = service
        self._token = token.encode() if token else None
        self._rates = _Rates(service.options.requests_per_minute)
        self._own_hosts = _own_hosts(service.options.host, service.options.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        options = self._service.options
        body = _Body(receive, _max_bytes(scope, options.max_bytes), options.body_seconds)
        answer = _Answer(send, body)
        began = time.perf_counter()
        try:
            await self._answer(scope, body, answer)
        except RefusedError as error:
            await refusal_response(error)(scope, receive, answer.send)
        except Exception as error:
            refusal = refusal_of_system(error) if isinstance(error, OSError) else None
            # Here, because the handlers of the framework would answer without our headers.
            if refusal is None:
                _log.exception("a request failed")
            if answer.status is None:
                refusal = refusal or RefusedError(500, FAULT)
                await refusal_response(refusal)(scope, receive, answer.send)
        finally:
            self._count(scope, answer, time.perf_counter() - began)

    async def _answer(self, scope: Scope, body: "_Body", answer: "_Answer") -> None:
        headers = Headers(scope=scope)
        body.complete_if_absent(headers)
        path = scope["path"]
        self._check_not_stopping(scope)
        self._check_caller(scope, headers)
        if path.startswith(PROTECTED_PREFIXES):
            self._check_token(headers)
        is_work = scope["method"] not in ("GET", "HEAD", "OPTIONS") and path.startswith("/v1/")
        if not is_work:
            await self._app(scope, body.receive, answer.send)
            return
        # Requests that only read are not counted: they cost little.
        self._rates.check(_client(scope))
        body.check_declared_bytes(headers)
        service = self._service
        if service.requests_in_flight >= service.options.queue_size:
            raise busy("the server works for too many others")
        # Counted here and not in the routes, so that no route can forget it.
        service.requests_in_flight += 1
        try:
            await _run_while_connected(self._app(scope, body.receive, answer.send), body, answer)
        finally:
            service.requests_in_flight -= 1

    def _check_not_stopping(self, scope: Scope) -> None:
        if self._service.is_stopping and scope["path"] not in PUBLIC_PATHS:
            raise RefusedError(503, "the server is stopping; send the request to another one", 5)

    def _check_caller(self, scope: Scope, headers: Headers) -> None:
        """Refuse requests of other web pages; a browser lets them reach this machine."""
        host = headers.get("host", "")
        # Another site can give its own name the address of this machine (DNS rebinding).
        if self._own_hosts is not None and _host_name(host) not in self._own_hosts:
            raise RefusedError(
                403, "this server is for this machine alone; --allowed-hosts names other hosts"
            )
        origin = headers.get("origin")
        is_own_page = origin is None or origin.partition("://")[2] == host
        if scope["method"] not in ("GET", "HEAD") and not is_own_page:
            raise RefusedError(403, "requests from the pages of other sites are refused")

    def _check_token(self, headers: Headers) -> None:
        if self._token is None:
            return
        kind, _, sent_token = headers.get("authorization", "").partition(" ")
        # In constant time, so that the time of an answer tells nothing of the token.
        is_right = hmac.compare_digest(sent_token.strip().encode(), self._token)
        if kind.lower() != "bearer" or not is_right:
            raise RefusedError(401, "send the token of this server: Authorization: Bearer TOKEN")

    def _count(self, scope: Scope, answer: "_Answer", seconds: float) -> None:
        # The path of the route, without ids: each different path would be a metric of its own.
        route = getattr(scope.get("route"), "path", "other")
        metrics = self._service.metrics
        metrics.requests.labels(route, str(answer.status or "left")).inc()
        metrics.seconds.labels(route).observe(seconds)


def refusal_response(error: RefusedError) -> JSONResponse:
    """A refusal as an answer: its status and one sentence."""
    headers = {}
    if error.retry_seconds is not None:
        headers["retry-after"] = str(error.retry_seconds)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse({"error": str(error)}, error.status, headers)


class _Body:
    """The body of a request, counted while it comes."""

    def __init__(self, receive: Receive, max_bytes: int, max_seconds: float) -> None:
        self.raw_receive = receive
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._end = asyncio.get_running_loop().time() + max_seconds
        self._bytes = 0
        self.is_complete = asyncio.Event()

    def complete_if_absent(self, headers: Headers) -> None:
        """Note that a request has no body, so that its connection can be used again."""
        if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
            self.is_complete.set()

    def check_declared_bytes(self, headers: Headers) -> None:
        """Refuse a body by its declared size, before any of it is read."""
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise RefusedError(413, self._too_large())

    async def receive(self) -> Message:
        """The next message. Raises HTTPException for a body that is too large or too slow."""
        if self.is_complete.is_set():
            return await self.raw_receive()
        try:
            async with asyncio.timeout_at(self._end):
                message = await self.raw_receive()
        except TimeoutError:
            sentence = f"the request did not arrive within {self._max_seconds:g} s"
            # FastAPI lets an HTTPException through where it reads a body, and no other error.
            raise HTTPException(408, sentence) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._max_bytes:
            raise HTTPException(413, self._too_large())
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.is_complete.set()
        return message

    async def discard(self) -> None:
        """Read the rest of the body and drop it, for at most `DISCARD_SECONDS`."""
        end = asyncio.get_running_loop().time() + DISCARD_SECONDS
        try:
            async with asyncio.timeout_at(end):
                while not self.is_complete.is_set():
                    message = await self.raw_receive()
                    if not message.get("more_body", False):
                        self.is_complete.set()
        except TimeoutError:
            return

    def _too_large(self) -> str:
        return f"the request is too large; at most {self._max_bytes / 1e6:g} MB are allowed"


class _Answer:
    """Sends an answer with the security headers, and remembers its status."""

    def __init__(self, send: Send, body: _Body) -> None:
        self._send = send
        self._body = body
        self.status: int | None = None
        self.is_complete = False

    async def send(self, message: Message) -> None:
        """Send a message of the application."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if not self._body.is_complete.is_set():
                headers.setdefault("connection", "close")
        is_last = message["type"] == "http.response.body" and not message.get("more_body")
        self.is_complete = self.is_complete or is_last
        if is_last and self.status is not None and self.status >= 400:
            # Closing a connection with unread data can lose the answer, so its end waits.
            await self._send({**message, "more_body": True})
            await self._body.discard()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)


async def _run_while_connected(work: Awaitable[None], body: _Body, answer: _Answer) -> None:
    """Do the work, or stop it when the client leaves."""
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_wait_for_disconnect(body))
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        # After the answer uvicorn says disconnect too, while the work still closes its files.
        if not task.done() and not answer.is_complete:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        await task
    finally:
        disconnect.cancel()
        task.cancel()


async def _wait_for_disconnect(body: _Body) -> None:
    """Return when the client has closed the connection."""
    # Until then the application reads the messages.
    await body.is_complete.wait()
    while (await body.raw_receive())["type"] != "http.disconnect":
        pass


class _Rates:
    """Limits the requests of each client.

    A client has an allowance of `per_minute` requests. One minute refills all of it, evenly.
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._allowances: dict[str, tuple[float, float]] = {}
        """For each client its allowance, and the time at which it had that."""

    def check(self, client: str) -> None:
        """Count a request. Raises RefusedError for one too many."""
        if not self._per_minute:
            return
        now = time.monotonic()
        # A client can have many addresses, so the table must not grow without end.
        if len(self._allowances) > MOST_CLIENTS:
            self._forget_silent(now)
        allowed, before = self._allowances.get(client, (float(self._per_minute), now))
        allowed = min(allowed + (now - before) * self._per_minute / 60, float(self._per_minute))
        if allowed < 1:
            self._allowances[client] = (allowed, now)
            wait_seconds = max(round((1 - allowed) * 60 / self._per_minute), 1)
            raise busy(f"one client may send {self._per_minute} requests a minute", wait_seconds)
        self._allowances[client] = (allowed - 1, now)

    def _forget_silent(self, now: float) -> None:
        """Forget clients that sent nothing for a minute; their allowances are full again."""
        self._allowances = {
            client: (allowed, before)
            for client, (allowed, before) in self._allowances.items()
            if now - before < 60
        }


def _max_bytes(scope: Scope, max_bytes: int) -> int:
    """Size of the body of this request at most."""
    is_form = Headers(scope=scope).get("content-type", "").startswith("multipart/form-data")
    return max_bytes if is_form else min(max_bytes, MAX_PLAIN_BYTES)


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def is_loopback(host: str) -> bool:
    """Whether a server at this address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _own_hosts(host: str, allowed_hosts: Iterable[str]) -> frozenset[str] | None:
    """The names of a server that listens on this machine alone; None for others: any name."""
    if not is_loopback(host):
        return None
    return frozenset({"localhost", "127.0.0.1", "::1", host, *allowed_hosts})


def _host_name(host: str) -> str:
    """The name of a Host header, without its port; empty for one that is no name."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
