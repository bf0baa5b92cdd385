"""The route `/v1/score`: does this sound belong to this picture?"""

from contextlib import AsyncExitStack

import torch
from fastapi import APIRouter

from looklisten.inference.towers import listen, look
from looklisten.model.l3net import L3Net
from looklisten.serving.reading import (
    PairRows,
    joined_pairs,
    read_clip_pairs,
    read_picture,
    read_sound,
)
from looklisten.serving.records import ScoredPair, ScoreReply
from looklisten.serving.refusals import RefusedError
from looklisten.serving.routes.fields import EverySeconds, MediaId, RootPath, Upload
from looklisten.serving.service import Service

PAIRS_AT_ONCE = 16
"""After so many pairs, the inference thread works for other requests."""


def score_routes(service: Service) -> APIRouter:
    """The route `/v1/score`."""
    router = APIRouter(tags=["pairs"])

    @router.post("/v1/score")
    async def score(
        file: Upload = None,
        media: MediaId = None,
        path: RootPath = None,
        picture: Upload = None,
        picture_media: MediaId = None,
        picture_path: RootPath = None,
        sound: Upload = None,
        sound_media: MediaId = None,
        sound_path: RootPath = None,
        every_seconds: EverySeconds = 1.0,
    ) -> ScoreReply:
        """Whether a sound belongs to a picture, for each second of the sound.

        Give `file`, a video with its own sound; or `picture`, a picture or a video, and `sound`, a
        sound or a video. After the end of a video its last frame stays.
        """
        is_clip = any(value is not None for value in (file, media, path))
        is_pair = any(
            value is not None
            for value in (
                picture,
                picture_media,
                picture_path,
                sound,
                sound_media,
                sound_path,
            )
        )
        if is_clip == is_pair:
            raise RefusedError(422, "give file, a video with sound; or picture and sound")
        async with AsyncExitStack() as stack:
            if is_clip:
                clip = await stack.enter_async_context(service.files.open(file, media, path))
                rows = await stack.enter_async_context(
                    service.decoders.decoded(read_clip_pairs, clip, every_seconds, service.encoder)
                )
            else:
                picture_file = await stack.enter_async_context(
                    service.files.open(picture, picture_media, picture_path, "picture")
                )
                sound_file = await stack.enter_async_context(
                    service.files.open(sound, sound_media, sound_path, "sound")
                )
                frames = await service.decoders.run(
                    read_picture, picture_file, every_seconds, service.encoder
                )
                waveforms = await stack.enter_async_context(
                    service.decoders.decoded(read_sound, sound_file, every_seconds)
                )
                rows = joined_pairs(waveforms, frames)
            probabilities: list[float] = []
            for start in range(0, len(rows.waveforms), PAIRS_AT_ONCE):
                probabilities += await service.batcher.call(
                    pair_probabilities, service.network, rows, start, start + PAIRS_AT_ONCE
                )
        return _reply(rows, probabilities, service.network.calibration is not None)

    return router


@torch.inference_mode()
def pair_probabilities(network: L3Net, rows: PairRows, start: int, end: int) -> list[float]:
    """For the pairs from `start` to `end`: the probability that frame and sound belong together."""
    device = next(network.parameters()).device
    # One by one on a CPU: with the size of a batch, the rounding of the results changes.
    step = 1 if device.type == "cpu" else end - start
    probabilities: list[float] = []
    for first in range(start, min(end, len(rows.waveforms)), step):
        frames = rows.frames[first : first + step].to(device)
        # A network that reads several frames of a pair gets the same one several times.
        frames = frames.repeat(1, network.config.frames_per_pair, 1, 1)
        waveforms = rows.waveforms[first : first + step].to(device)
        vision, audio = look(network, frames), listen(network, waveforms)
        logits = network.fusion(*network.fusion.features(vision, audio))
        probabilities += torch.sigmoid(network.log_odds(logits)).float().cpu().tolist()
    return probabilities


def _reply(rows: PairRows, probabilities: list[float], is_calibrated: bool) -> ScoreReply:
    pairs = [
        ScoredPair(
            picture_seconds=rows.frame_seconds[number],
            sound_seconds=rows.sound_seconds[number],
            probability=probability,
            is_silent=rows.silent[number],
        )
        for number, probability in enumerate(probabilities)
    ]
    # No network is trained on silence, so its answers to silence mean nothing.
    counted = [pair.probability for pair in pairs if not pair.is_silent]
    mean = sum(counted) / len(counted) if counted else None
    return ScoreReply(probability=mean, is_calibrated=is_calibrated, pairs=pairs)
