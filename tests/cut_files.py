"""Clips of a file, with what decoding and cutting it met."""

from dataclasses import replace

from looklisten.data.cutting import ClipCutter
from looklisten.data.options import PrepareOptions
from looklisten.data.sources import Source
from looklisten.errors import TooShortError


def clips_and_report(path, start_seconds=None, stop_seconds=None, **settings):
    """(the clips, none where they would be too short; one report of decoding and cutting)"""
    source = Source(path.name, start_seconds=start_seconds, stop_seconds=stop_seconds)
    cutter = ClipCutter(source, PrepareOptions(**settings))
    clips = []
    try:
        clips += cutter.cut(path)
    except TooShortError:
        clips = []
    return clips, replace(
        cutter.report, stop_reason=cutter.stop_reason, lost_seconds=cutter.lost_seconds
    )
