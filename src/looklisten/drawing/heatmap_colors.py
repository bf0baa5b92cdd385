"""How a heat map looks over what it covers: enlarged bilinearly, dark where it is low, glowing
where it is high.

Stills and films glow alike. Arrays in, arrays out; knows no file and no network.
"""

from functools import cache

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from looklisten.inference.localization.enlarge import enlarged
from looklisten.media.decode.records import Planes

Picture = NDArray[np.float32]
"""`[height, width, 3]` in 0..1."""


HEAT = colormaps["inferno"]


GROUND = 0.72
"""How bright the ground stays where the map is 0."""


OPAQUE = 0.85
"""How much of the ground the map's color replaces where the map is 1."""


FAINTEST = 0.3
"""Where in `HEAT` a map's 0 stands: below, the colors are dark and would look like shadow, not
glow.
"""


LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Of red, green and blue: ITU-R BT.601."""


def overlaid(ground: Picture, heat: NDArray[np.float32]) -> Picture:
    """`ground` under the glow of `heat`, a map in 0..1 of any size."""
    kept, added = _glow(_strength(enlarged(heat, *ground.shape[:2])))
    mixed: Picture = ground * kept[..., None] + added
    return np.clip(mixed, 0, 1)


def overlay_planes(ground: Planes, heat: NDArray[np.float32], out: Planes) -> None:
    """The same for a frame of a film, in place: planes of luma and of chroma at half the
    resolution, through tables.
    """
    level = np.rint(_strength(enlarged(heat, *ground[0].shape)) * 255).astype(np.uint16) << 8
    for seen, drawn, table, place in zip(
        ground, out, _tables(), (level, *[level[::2, ::2]] * 2), strict=True
    ):
        drawn[:] = table[place | seen]


def to_planes(picture: Picture) -> Planes:
    """Red, green and blue as luma and chroma, limited range, all at the full resolution."""
    luma = picture @ LUMA
    blue, red = ((picture[..., side] - luma) / (2 * (1 - LUMA[side])) for side in (2, 0))
    scaled = (16 + 219 * luma, 128 + 224 * blue, 128 + 224 * red)
    y, u, v = (np.rint(plane).clip(0, 255).astype(np.uint8) for plane in scaled)
    return y, u, v


def _strength(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """The root of a map, so that half is still well seen."""
    root: NDArray[np.float32] = np.sqrt(heat.clip(0, 1))
    return root


def _glow(strength: NDArray[np.float32]) -> tuple[NDArray[np.float32], Picture]:
    """What share of the ground is kept, and which color is added."""
    opacity = OPAQUE * strength**1.5
    color = HEAT(FAINTEST + (1 - FAINTEST) * strength)[..., :3].astype(np.float32)
    return GROUND * (1 - opacity), color * opacity[..., None]


@cache
def _tables() -> Planes:
    """For luma and the two chroma planes: what a byte becomes, at 256 x strength + byte. Mixing is
    linear, so it is so in each plane.
    """
    kept, added = _glow(np.linspace(0, 1, 256, dtype=np.float32))
    luma = added @ LUMA
    blue, red = ((added[:, side] - luma) / (2 * (1 - LUMA[side])) for side in (2, 0))
    byte = np.arange(256, dtype=np.float32)
    y, u, v = (
        np.rint(zero + (byte - zero) * kept[:, None] + span * some[:, None])
        .clip(0, 255)
        .astype(np.uint8)
        .ravel()
        for zero, span, some in ((16, 219, luma), (128, 224, blue), (128, 224, red))
    )
    return y, u, v
