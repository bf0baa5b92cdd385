"""The route `/v1/embed`: a file -> vectors with their times."""

from typing import Annotated

from fastapi import APIRouter, Form

from looklisten.inference.embedding.options import SideChoice
from looklisten.inference.embedding.records import normalize_rows
from looklisten.media.spectrogram import WINDOW_SECONDS
from looklisten.serving.reading import read_side
from looklisten.serving.records import EmbedReply
from looklisten.serving.routes.fields import HopSeconds, MediaId, RootPath, Upload
from looklisten.serving.service import Service


def embed_routes(service: Service) -> APIRouter:
    """The route of vectors."""
    router = APIRouter(tags=["vectors"])

    @router.post("/v1/embed")
    async def embed(
        file: Upload = None,
        media: MediaId = None,
        path: RootPath = None,
        side: Annotated[
            SideChoice, Form(description="auto takes the sound if there is any.")
        ] = "auto",
        layer: Annotated[
            str | None, Form(description="See /v1/model; default: the usual one.", max_length=64)
        ] = None,
        hop_seconds: HopSeconds = 0.5,
        normalize: Annotated[bool, Form(description="Give vectors of length 1.")] = False,
    ) -> EmbedReply:
        """Vectors of the sound or of the frames of a file."""
        if side != "auto":
            # Before decoding, which costs more.
            service.layer(side, layer)
        async with (
            service.files.open(file, media, path) as source,
            service.decoders.decoded(read_side, source, side, hop_seconds, service.encoder) as read,
        ):
            layer = service.layer(read.side, layer)
            rows = await service.batcher.encode(read.side, layer, read.rows)
        vectors = normalize_rows(rows.numpy()) if normalize else rows.numpy()
        return EmbedReply(
            side=read.side,
            layer=layer,
            window_seconds=WINDOW_SECONDS if read.side == "audio" else 0.0,
            width=vectors.shape[1],
            start_seconds=read.start_seconds,
            vectors=vectors.tolist(),
            stop_reason=read.stop_reason,
        )

    return router
