"""The route `/v1/localize`: where the sound of a video comes from."""

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Response
from fastapi.responses import JSONResponse

from looklisten.data.options import PrepareOptions
from looklisten.drawing.figures import FramePixels, encode_png, frame_overlay
from looklisten.drawing.localization_folder import localize_video
from looklisten.drawing.overlay_video import overlay
from looklisten.errors import SourceError
from looklisten.inference.localization.localize import localize_each
from looklisten.inference.localization.methods import default_method, localize_moments
from looklisten.inference.localization.options import LocalizeFileOptions, LocalizeOptions, Method
from looklisten.inference.localization.records import HeatMap, Localization, normalize_maps
from looklisten.media.isolation.parent import use_limits
from looklisten.serving.decoding import FileReading, refusal_of
from looklisten.serving.jobs import RunningJob
from looklisten.serving.records import Job, LocalizeReply, MomentMap
from looklisten.serving.requested_files import RequestedFile
from looklisten.serving.routes.fields import EverySeconds, MediaId, RootPath, Upload
from looklisten.serving.service import Service

MAP_DIGITS = 4
AnswerFormat = Literal["json", "png", "video"]


def localize_routes(service: Service) -> APIRouter:
    """The route of heat maps."""
    router = APIRouter(tags=["maps"])

    @router.post(
        "/v1/localize",
        response_model=LocalizeReply,
        responses={
            200: {
                "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
                "description": "The maps; with format png, one frame with its map.",
            },
            202: {"model": Job, "description": "With format video, the job that draws it."},
        },
    )
    async def localize(
        file: Upload = None,
        media: MediaId = None,
        path: RootPath = None,
        every_seconds: EverySeconds = 1.0,
        at_seconds: Annotated[
            float | None, Form(description="One moment alone, at this time.", ge=0, le=864_000)
        ] = None,
        method: Annotated[
            Method | None, Form(description="See /v1/model; default: the usual one.")
        ] = None,
        format: Annotated[
            AnswerFormat, Form(description="json, png (one moment), or video (a job).")
        ] = "json",
    ) -> Response | LocalizeReply:
        """Heat maps of a video: json, a picture of one moment, or the whole video as a job."""
        options = LocalizeOptions(every_seconds=every_seconds, method=method)
        async with service.files.open(file, media, path) as source:
            if format == "video":
                return JSONResponse(
                    (await _overlay_job(service, source, options)).model_dump(), 202
                )
            localized = await service.decoders.run(read_maps, source, service, options, at_seconds)
        if format == "png":
            return Response(await service.batcher.call(_picture, localized), media_type="image/png")
        localizations = normalize_maps([localization for _, localization in localized])
        return LocalizeReply(
            method=method or default_method(service.network),
            every_seconds=every_seconds,
            moments=[_moment(localization) for localization in localizations],
        )

    return router


Localized = list[tuple[FramePixels, Localization]]


def read_maps(
    reading: FileReading, service: Service, options: LocalizeOptions, at_seconds: float | None
) -> Localized:
    """The frames and maps of a video; the network computes on its own thread."""
    # Raises an error for a file over a limit, before anything is decoded.
    reading.facts()
    limits = PrepareOptions(max_megapixels=service.options.max_megapixels)
    times = None if at_seconds is None else [at_seconds]
    localized = []
    for moment, localization in localize_each(
        reading.file.path,
        service.network,
        options,
        times,
        prepare_options=limits,
        compute=_computed_by(service),
    ):
        reading.check(localization.at_seconds)
        # Frames are stored for a picture of one moment alone: those of a long video are large.
        localized.append((moment.frame if times else moment.frame[:1, :1], localization))
    if not localized:
        raise SourceError(f"{reading.file.path} has no second with both picture and sound")
    return localized


def _computed_by(service: Service) -> Any:
    """`localize_moments` on the inference thread."""

    def compute(*arguments: Any) -> list[Localization]:
        return service.batcher.call_from_thread(localize_moments, *arguments)

    return compute


async def _overlay_job(service: Service, source: RequestedFile, options: LocalizeOptions) -> Job:
    with service.jobs.new_folder() as folder:
        # The request ends before the job, and an upload with it.
        stored = await service.files.keep(source, folder)

        def work(job: RunningJob) -> dict[str, Any]:
            return _draw_overlay(service, stored, folder / "overlay.mp4", options, job)

        return service.jobs.start("overlay", work, folder)


def _draw_overlay(
    service: Service, file: RequestedFile, out: Path, options: LocalizeOptions, job: RunningJob
) -> dict[str, Any]:
    file_options = LocalizeFileOptions(maps=options)
    try:
        with use_limits(service.decoders.worker_limits):
            FileReading(file, service.options).facts()
            localized = localize_video(
                file.path, service.network, file_options, job.progress, _computed_by(service)
            )
            overlay(file.path, localized.localizations, out, job.progress, localized.video_info)
    except SourceError as error:
        raise refusal_of(error, file) from None
    # The video stays until it is fetched; the upload is not needed any more.
    if file.path.parent == out.parent:
        file.path.unlink()
    job.file = out
    return {"moments": len(localized.localizations), "bytes": out.stat().st_size}


def _picture(localized: Localized) -> bytes:
    """A PNG file of the moment in the middle, with its map."""
    frame, localization = localized[len(localized) // 2]
    # Brightness is relative to the maps of one answer, here to this one alone.
    (normalized,) = normalize_maps([localization])
    return encode_png(frame_overlay(frame, normalized))


def _moment(localization: Localization) -> MomentMap:
    return MomentMap(
        at_seconds=localization.at_seconds,
        sound_start_seconds=localization.sound_start_seconds,
        probability=localization.probability,
        is_silent=localization.is_silent,
        peak=localization.frame_map.peak(),
        frame_map=_rows(localization.frame_map),
        sound_map=_rows(localization.sound_map),
    )


def _rows(heat_map: HeatMap) -> list[list[float]]:
    rows: list[list[float]] = heat_map.values.round(MAP_DIGITS).tolist()
    return rows
