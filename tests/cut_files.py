"""Clips of a file, with what decoding and cutting it met."""

from dataclasses import replace

from looklisten.data.cutting import CutReport, cut
from looklisten.data.options import PrepareOptions
from looklisten.data.sources import Source
from looklisten.errors import TooShortError
from looklisten.media.decode.records import DecodeReport


def clips_and_report(path, start_seconds=None, stop_seconds=None, **settings):
    """(the clips, none where they would be too short; one report of decoding and cutting)"""
    report, cut_report = DecodeReport(), CutReport()
    source = Source(path.name, start_seconds=start_seconds, stop_seconds=stop_seconds)
    clips = []
    try:
        options = PrepareOptions(**settings)
        clips += cut(path, source, options, report=report, cut_report=cut_report)
    except TooShortError:
        clips = []
    return clips, replace(
        report,
        stop_reason=cut_report.stop_reason or report.stop_reason,
        lost_seconds=report.lost_seconds | cut_report.lost_seconds,
    )
