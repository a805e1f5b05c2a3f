"""A histogram as bars of text."""

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from itertools import groupby
from typing import Any, NamedTuple

from logagg.cli.output import LEVEL_COLOURS
from logagg.cli.terminal import paint, visible
from logagg.protocols.record import LEVELS


class Band(NamedTuple):
    """A part of a bar: the levels that it counts, and how it looks with and without colour."""

    name: str
    levels: Sequence[str]
    shade: str
    colour: str


BANDS = (
    Band("error and worse", LEVELS[:4], "█", LEVEL_COLOURS["ERROR"]),
    Band("warning", LEVELS[4:5], "▓", LEVEL_COLOURS["WARNING"]),
    Band("notice, info", LEVELS[5:7], "▒", LEVEL_COLOURS["INFO"]),
    Band("debug", LEVELS[7:], "░", LEVEL_COLOURS["DEBUG"]),
)

#: So many empty bins in a row, or more, are one line.
_FOLDED = 3


def bars(bins: Sequence[Mapping[str, Any]], seconds: float, *, width: int, zone: tzinfo | None, colour: bool) -> str:
    """Draw a line for each bin: when it starts, how many records, and a bar of its levels, the worst first.

    `bins` and `seconds`, the width of a bin, are as the HTTP API gives them. What occurs at all gets at least one cell:
    one error among a million records is seen. Empty bins in a row are one line. The last line says what is what.
    """
    counts = [[sum(each["levels"].get(level, 0) for level in band.levels) for band in BANDS] for each in bins]
    labels = [_label(each["start"], seconds, zone) for each in bins]
    totals = [str(each["total"]) for each in bins]
    digits = max(map(len, totals), default=1)
    # Each band may round up to one cell more than its share.
    room = max(10, width - max(map(len, labels), default=0) - digits - 2 - len(BANDS))
    scale = room / max((each["total"] for each in bins), default=1) if any(each["total"] for each in bins) else 0.0
    lines: list[str] = []
    rows = zip(labels, totals, counts, strict=True)
    for empty, run in groupby(rows, key=lambda row: not any(row[2])):
        drawn = [f"{label} {total.rjust(digits)} {_bar(parts, scale, colour)}".rstrip() for label, total, parts in run]
        lines += [f"...  {len(drawn)} empty bins"] if empty and len(drawn) >= _FOLDED else drawn
    return "\n".join([*lines, _legend(counts, seconds, colour)]) + "\n"


def _bar(parts: Sequence[int], scale: float, colour: bool) -> str:
    text, reached, drawn = "", 0.0, 0
    for band, count in zip(BANDS, parts, strict=True):
        if not count:
            continue
        reached += count * scale
        cells = max(1, round(reached) - drawn)
        drawn += cells
        text += paint("█" * cells, band.colour) if colour else band.shade * cells
    return text


def _legend(counts: Sequence[Sequence[int]], seconds: float, colour: bool) -> str:
    sums = [sum(column) for column in zip(*counts, strict=True)] if counts else [0] * len(BANDS)
    parts = [f"{sum(sums)} records, {_span(seconds)} a bar"]
    for band, count in zip(BANDS, sums, strict=True):
        if count:
            mark = paint("█", band.colour) if colour else band.shade
            parts.append(f"{mark} {band.name} {count}")
    return "  ".join(parts)


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _label(start: Any, seconds: float, zone: tzinfo | None) -> str:
    try:
        moment = datetime.fromisoformat(str(start)).astimezone(zone)
    except (ValueError, OverflowError):
        return visible(str(start))
    if seconds % 60:
        return f"{moment:%Y-%m-%d %H:%M:%S}"
    return f"{moment:%Y-%m-%d %H:%M}"
