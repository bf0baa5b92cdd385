"""The routes of media: files of the index by their id, with ranges, and their thumbnails."""

import asyncio
import mimetypes
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import FileResponse

from looklisten.serving.catalog import kind_of
from looklisten.serving.files_in_answers import RangedFile
from looklisten.serving.records import ThumbnailMap
from looklisten.serving.service import Service

MediumId = Annotated[str, Path(description="As searches give it.", max_length=64)]
DEFAULT_TYPES = {"image": "image/jpeg", "audio": "audio/mpeg", "video": "video/mp4"}
CACHE_HEADERS = {"cache-control": "private, max-age=3600"}
"""An id names a content, which does not change."""


def media_routes(service: Service) -> APIRouter:
    """The routes of media."""
    router = APIRouter(tags=["index"])

    @router.get(
        "/v1/media/{media}",
        response_class=FileResponse,
        responses={200: {"content": {"video/*": {}}, "description": "The file, or a range."}},
    )
    def medium(media: MediumId) -> FileResponse:
        """A file of the index; ranges of bytes are allowed, so that players can jump."""
        path = service.media_path(media)
        return RangedFile(path, media_type(path.name), CACHE_HEADERS)

    @router.get(
        "/v1/thumbnails/{thumbnail}",
        response_class=FileResponse,
        responses={200: {"content": {"image/jpeg": {}}, "description": "A small picture."}},
    )
    def thumbnail(thumbnail: MediumId) -> FileResponse:
        """The small picture of a moment."""
        path = service.index_catalog().thumbnail_path(thumbnail)
        return RangedFile(path, "image/jpeg", CACHE_HEADERS)

    @router.get("/v1/thumbnails/{thumbnail}/map")
    async def thumbnail_map(thumbnail: MediumId) -> ThumbnailMap:
        """Where in a thumbnail the sound of its moment comes from; null where nothing is known."""
        catalog = service.index_catalog()
        path = catalog.thumbnail_path(thumbnail)
        sound = await asyncio.to_thread(catalog.sound_of_thumbnail, thumbnail)
        if sound is None:
            return ThumbnailMap(frame_map=None)
        values = await service.batcher.call(catalog.map_of, path, sound)
        return ThumbnailMap(frame_map=values)

    return router


def media_type(name: str) -> str:
    """The type of a medium for browsers: never one that a browser runs."""
    guessed, _ = mimetypes.guess_type(name)
    kind = kind_of(name)
    if guessed and guessed.startswith((f"{kind}/", "audio/", "video/")):
        # An SVG picture may hold a program.
        return guessed if "svg" not in guessed else "application/octet-stream"
    return DEFAULT_TYPES[kind]
