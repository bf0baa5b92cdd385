"""The page of a search: its scenes with players that jump to the moment.

Thumbnails and maps are inside of the page. Sounds and videos stay where they are, and the page
names them by their paths from its own folder.
"""

import io
import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from looklisten.app.pages.page import data_url, write_page
from looklisten.app.pages.unit_page import webp
from looklisten.data.sources import is_remote
from looklisten.drawing.heatmap_colors import overlay_image
from looklisten.errors import LookListenError
from looklisten.media.formats import AUDIO_SUFFIXES, IMAGE_SUFFIXES
from looklisten.names import decode_name
from looklisten.search.finding.hits import Hit, Hits
from looklisten.search.finding.searching import Index

TAGS_OF_HIT = 4

_log = logging.getLogger("looklisten")


def write_hits_page(path: Path, hits: Hits, index: Index) -> dict[str, Any]:
    """Write the scenes of a search, or the nearest below the threshold, as one HTML file."""
    drawing = _MapDrawing(index)
    write_page(
        path,
        "hits.html.j2",
        query=hits.query,
        reason=hits.reason,
        threshold=hits.threshold,
        scenes=[_scene_values(scene, path, drawing) for scene in hits.scenes or hits.nearest],
        has_maps=drawing.has_drawn,
    )
    return {"page": str(path)}


def _scene_values(scene: Hit, page: Path, drawing: "_MapDrawing") -> dict[str, Any]:
    """The values of the template for one scene."""
    tags = sorted(scene.tags.items(), key=lambda item: -item[1])[:TAGS_OF_HIT]
    return {
        "scene": scene,
        "kind": _kind(scene.source),
        "address": _address(scene.source, page),
        "name": Path(scene.source).name,
        "picture": drawing.picture(scene),
        "tags": [f"{name} {score:.2f}" for name, score in tags],
    }


def _kind(source: str) -> str:
    suffix = Path(source).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "audio" if suffix in AUDIO_SUFFIXES else "video"


def _address(source: str, page: Path) -> str:
    """The source as the page finds it: from the page's folder, or on the net."""
    if is_remote(source):
        return source
    # A relative path, so that the page and the media can be moved together.
    relative = os.path.relpath(decode_name(source), page.absolute().parent)
    return quote(os.fsencode(Path(relative).as_posix()))


class _MapDrawing:
    """Draws thumbnails with the maps of their moments' own sounds."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._maps_fail = False
        self.has_drawn = False

    def picture(self, scene: Hit) -> str:
        """The thumbnail of a scene as a data URL; empty without one."""
        if scene.thumbnail is None:
            return ""
        try:
            jpeg = (self._index.thumbnails / scene.thumbnail).read_bytes()
            pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"), np.float32)
        except OSError:
            # Somebody removed the thumbnails, or the power failed; the page works without them.
            return ""
        heat = None if self._maps_fail else self._map(scene)
        if heat is None:
            return data_url(jpeg, "image/jpeg")
        self.has_drawn = True
        return data_url(webp(overlay_image(pixels / np.float32(255), heat)), "image/webp")

    def _map(self, scene: Hit) -> Any:
        try:
            return self._index.thumbnail_map(scene)
        except LookListenError as error:
            # A search by tag needs no network, and its page does not either.
            _log.warning("the page has no heat maps: %s", error)
            self._maps_fail = True
            return None
