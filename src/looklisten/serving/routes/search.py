"""The route `/v1/search`: a sound, a picture, a video or a tag -> scenes of the index."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form

from looklisten.search.finding.query import QUERY_EVERY_SECONDS, Query, query_of_moments
from looklisten.search.finding.searching import DEFAULT_SCENES
from looklisten.search.indexing.source_reader import read_moment, read_source
from looklisten.search.options import FindSide, QuerySide, SearchOptions
from looklisten.serving.decoding import FileReading
from looklisten.serving.records import SearchReply
from looklisten.serving.refusals import RefusedError
from looklisten.serving.routes.fields import MediaId, RootPath, Upload
from looklisten.serving.service import Service

MOST_SCENES = 100


def search_routes(service: Service) -> APIRouter:
    """The route of searching."""
    router = APIRouter(tags=["index"])

    @router.post("/v1/search")
    async def search(
        file: Upload = None,
        media: MediaId = None,
        path: RootPath = None,
        tag: Annotated[
            str | None, Form(description="Instead of a file: the name of a class.", max_length=200)
        ] = None,
        at_seconds: Annotated[
            float | None, Form(description="Only this second of the file.", ge=0, le=864_000)
        ] = None,
        find: Annotated[FindSide, Form(description="What of the moments is compared.")] = "both",
        by: Annotated[QuerySide, Form(description="What of the query is compared.")] = "auto",
        k: Annotated[int, Form(description="Scenes at most.", ge=1, le=MOST_SCENES)] = (
            DEFAULT_SCENES
        ),
        where: Annotated[
            str | None,
            Form(description="Filter, such as: label = 'dog' AND seconds < 60.", max_length=1000),
        ] = None,
        threshold: Annotated[
            float | None, Form(description="Score from which a scene is found.", ge=0, le=1)
        ] = None,
    ) -> SearchReply:
        """The scenes of the index that sound or look like a query, or have a tag."""
        catalog = service.index_catalog()
        options = SearchOptions(find=find, by=by, where=where, threshold=threshold)
        if tag is not None:
            if any(value is not None for value in (file, media, path)):
                raise RefusedError(422, "give one query: a file, or a tag")
            # In a thread, so that the event loop answers others meanwhile.
            hits = await asyncio.to_thread(catalog.index.search, None, tag, k, options)
            return catalog.reply(hits, tag)
        async with service.files.open(file, media, path) as source:
            # The search itself does not need the file, so the upload is removed before it.
            query = await service.decoders.run(read_query_file, source, service, at_seconds)
        hits = await asyncio.to_thread(catalog.index.search_vectors, query, k, options)
        return catalog.reply(hits, source.name)

    return router


def read_query_file(reading: FileReading, service: Service, at_seconds: float | None) -> Query:
    """The query that a file is, or one second of it."""
    facts = reading.facts()
    encoder = service.query_encoder
    if at_seconds is not None and facts.kind != "image":
        moments = [read_moment(reading.file.path, at_seconds, encoder)]
    else:
        content = read_source(
            reading.file.path, encoder, QUERY_EVERY_SECONDS, advance=reading.check
        )
        moments = content.moments
    return query_of_moments(reading.file.name, moments)
