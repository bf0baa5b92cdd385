"""The application: routes, the gate before them, errors as sentences, and the page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from looklisten.errors import LookListenError
from looklisten.serving.gate import Gate, refusal_response
from looklisten.serving.records import ErrorReply
from looklisten.serving.refusals import RefusedError, refusal_of_system
from looklisten.serving.routes.embed import embed_routes
from looklisten.serving.routes.indexing import index_routes
from looklisten.serving.routes.jobs import job_routes
from looklisten.serving.routes.localize import localize_routes
from looklisten.serving.routes.media import media_routes
from looklisten.serving.routes.score import score_routes
from looklisten.serving.routes.search import search_routes
from looklisten.serving.routes.spectrogram import spectrogram_routes
from looklisten.serving.routes.system import system_routes
from looklisten.serving.routes.tags import tag_routes
from looklisten.serving.routes.units import unit_routes
from looklisten.serving.service import Service

PAGE = Path(__file__).parent / "page"
ERRORS = {
    401: "The token is missing or wrong.",
    403: "The request comes from another site, or names a file that is not allowed.",
    408: "The request did not arrive in time.",
    413: "The request is too large.",
    422: "The request, or the file in it, is not what it should be.",
    429: "The server, or this client, has too much to do; see the header Retry-After.",
    503: "The server is stopping.",
}


def build_app(service: Service, token: str | None = None) -> FastAPI:
    """The application of a service. `token`: what each request must carry, if anything."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="looklisten",
        version=version("looklisten"),
        summary="Where sound and picture belong together.",
        # The pages of FastAPI load scripts from other sites; /openapi.json is enough.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses={
            status: {"model": ErrorReply, "description": text} for status, text in ERRORS.items()
        },
    )
    # Each file has one such function, so that a new route is one file and one line here.
    for routes in (
        embed_routes,
        score_routes,
        localize_routes,
        spectrogram_routes,
        search_routes,
        index_routes,
        tag_routes,
        unit_routes,
        job_routes,
        media_routes,
        system_routes,
    ):
        app.include_router(routes(service))
    app.mount("/static", StaticFiles(directory=PAGE), "static")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    async def on_library_error(_: Request, error: Exception) -> JSONResponse:
        """An error of the library, which is a sentence already."""
        if isinstance(error, RefusedError):
            return refusal_response(error)
        return refusal_response(RefusedError(422, service.without_paths(str(error))))

    app.add_exception_handler(LookListenError, on_library_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_wrong_request)
    # A middleware and not a dependency of routes: those run after the body was read.
    app.add_middleware(Gate, service=service, token=token)
    return app


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    """An error of the framework, such as an unknown route."""
    assert isinstance(error, HTTPException)
    # FastAPI makes an HTTPException of whatever goes wrong while it reads a body.
    if isinstance(error.__cause__, OSError) and (refusal := refusal_of_system(error.__cause__)):
        return refusal_response(refusal)
    headers = dict(error.headers or {})
    sentence = str(error.detail)
    # The framework has only the name of the status for these.
    if error.status_code == 404:
        sentence = "there is no such address here; /openapi.json lists all"
    if error.status_code == 405:
        sentence = f"this address takes no {request.method}; /openapi.json says what it takes"
    return JSONResponse({"error": sentence}, error.status_code, headers)


async def _on_wrong_request(_: Request, error: Exception) -> JSONResponse:
    """A request whose fields do not fit their records."""
    assert isinstance(error, RequestValidationError)
    # Only the first fault: an error is one sentence, not a list.
    first = error.errors()[0]
    # The first part says where the field is, such as `body`.
    field = ".".join(str(part) for part in first["loc"][1:])
    sentence = f"{field}: {first['msg']}" if field else str(first["msg"])
    if first["type"] == "json_invalid":
        sentence = f"the body is no JSON from byte {field} on"
    if first["type"] == "value_error" and isinstance(first["input"], str):
        sentence = f"{field}: send a file with a name, not a text"
    return JSONResponse({"error": sentence}, 422)
