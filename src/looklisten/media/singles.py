"""One sound file or one picture file, whole -> an array. Knows no clock: a file of one kind has only itself to keep time with."""

from pathlib import Path

import av
import numpy as np
import soxr
from numpy.typing import NDArray

from looklisten.errors import SourceError
from looklisten.media import SAMPLE_RATE_HZ
from looklisten.media.decode import to_mono


def read_sound(path: str | Path) -> NDArray[np.float32]:
    """The sound of a file, `[samples]` float32 in -1..1, mono, 48 kHz. Raises SourceError when there is none."""
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise SourceError(f"{path} has no sound")
            frames = list(container.decode(container.streams.audio[0]))
            pieces = [to_mono(frame) for frame in frames]
            rate = frames[0].sample_rate if frames else SAMPLE_RATE_HZ
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as sound: {error}") from None
    if not pieces:
        raise SourceError(f"{path} holds no sound that can be decoded")
    samples: NDArray[np.float32] = soxr.resample(np.concatenate(pieces), rate, SAMPLE_RATE_HZ, "HQ")
    return samples


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """The first picture of a file, `[height, width, 3]`, RGB. Raises SourceError when there is none."""
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise SourceError(f"{path} has no picture")
            picture = next(container.decode(container.streams.video[0])).to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except StopIteration:
        raise SourceError(f"{path} holds no picture that can be decoded") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as a picture: {error}") from None
    return picture
