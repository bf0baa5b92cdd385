"""The route `/v1/spectrogram`: a sound -> its log-spectrogram, for people to look at."""

import numpy as np
import torch
from fastapi import APIRouter
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional

from looklisten.drawing.spectrogram_strip import CONTRAST_PERCENTILES, stretch_contrast
from looklisten.media.spectrogram import WINDOW_SECONDS
from looklisten.model.l3net import L3Net
from looklisten.serving.reading import read_sound
from looklisten.serving.records import SpectrogramReply
from looklisten.serving.routes.fields import MediaId, RootPath, Upload
from looklisten.serving.service import Service

SECONDS_AT_ONCE = 16
MOST_BANDS = 96
MOST_COLUMNS = 1200
"""Of the whole spectrogram. A screen shows no more, and the answer stays small."""
MOST_COLUMNS_A_SECOND = 100


def spectrogram_routes(service: Service) -> APIRouter:
    """The route of spectrograms."""
    router = APIRouter(tags=["maps"])

    @router.post("/v1/spectrogram")
    async def spectrogram(
        file: Upload = None, media: MediaId = None, path: RootPath = None
    ) -> SpectrogramReply:
        """The log-spectrogram of a sound, or of the sound of a video, as the network hears it."""
        async with (
            service.files.open(file, media, path) as source,
            service.decoders.decoded(read_sound, source, WINDOW_SECONDS) as (waveforms, _),
        ):
            columns = min(max(MOST_COLUMNS // len(waveforms), 1), MOST_COLUMNS_A_SECOND)
            parts = []
            for part in torch.split(waveforms, SECONDS_AT_ONCE):
                parts.append(
                    await service.batcher.call(spectrogram_levels, service.network, part, columns)
                )
        values = torch.cat(parts, 1).numpy()
        low, high = np.percentile(values, CONTRAST_PERCENTILES)
        levels = (255 * stretch_contrast(values, low, high)).round().astype(np.uint8)
        return SpectrogramReply(seconds=len(waveforms) * WINDOW_SECONDS, levels=levels.tolist())

    return router


@torch.inference_mode()
def spectrogram_levels(
    network: L3Net, waveforms: Num[Tensor, "seconds samples"], columns: int
) -> Float[Tensor, "bands columns"]:
    """The spectrograms of successive seconds side by side, `columns` wide each."""
    device = next(network.parameters()).device
    spectrograms = network.spectrogram(waveforms.to(device)).cpu()
    bands = min(spectrograms.shape[2], MOST_BANDS)
    width = min(spectrograms.shape[3], columns)
    # Means, because single columns could miss a short sound.
    smaller = functional.adaptive_avg_pool2d(spectrograms, (bands, width))[:, 0]
    return torch.cat(list(smaller), 1)
