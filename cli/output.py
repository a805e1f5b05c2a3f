"""The forms that answers are printed in: text, JSON lines, a JSON array, CSV, and messages alone.

A form is fed pages of records, as the HTTP API gives them, and returns text; `head` and `tail` are what stands around
them. No form keeps the records.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

from logagg.cli.terminal import harmless_json, paint, visible

if TYPE_CHECKING:
    from logagg.cli.highlight import Highlight

Row = dict[str, Any]

#: The fields of a record, in the order of the HTTP API.
RECORD_FIELDS = (
    "id", "timestamp", "received_at", "level", "service", "host", "environment", "source", "facility", "message",
    "attributes", "trace_id", "span_id",
)  # fmt: skip

#: SGR codes of the levels.
LEVEL_COLOURS = {
    "EMERGENCY": "1;97;41", "ALERT": "1;97;41", "CRITICAL": "1;97;41", "ERROR": "1;31", "WARNING": "33",
    "NOTICE": "36", "INFO": "32", "DEBUG": "2",
}  # fmt: skip
DIM, BOLD = "2", "1"
#: Red and yellow belong to the levels.
_SERVICE_COLOURS = ("36", "35", "34", "96", "95", "94", "92")
#: A column is padded up to this; a longer value just takes its room.
_WIDEST = 32
_INDENT = "    "
#: Attributes nested deeper than this are printed as JSON.
_DEEPEST = 8


class Form(Protocol):
    """How rows become text."""

    #: What stands before the first row, and between two groups of rows.
    head: str
    separator: str

    def page(self, rows: Sequence[Row]) -> str:
        """Return the text of some rows, each of whole lines."""

    def tail(self) -> str:
        """Return what stands after the last row."""


def compact(value: Any) -> str:
    """Write JSON as the records have it, in one line, with nothing in it that acts on a terminal."""
    return harmless_json(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


class JsonLines:
    """One JSON object a line."""

    head = ""
    separator = ""

    def page(self, rows: Sequence[Row]) -> str:
        """Return a line for each row."""
        return "".join(f"{compact(row)}\n" for row in rows)

    def tail(self) -> str:
        """Return nothing."""
        return ""


class JsonArray:
    """One JSON array, an element a line, so that it streams."""

    head = "["
    separator = ""

    def __init__(self) -> None:
        self._separator = "\n"

    def page(self, rows: Sequence[Row]) -> str:
        """Return the elements."""
        parts = []
        for row in rows:
            parts.append(self._separator + compact(row))
            self._separator = ",\n"
        return "".join(parts)

    def tail(self) -> str:
        """Return the end of the array."""
        return "]\n" if self._separator == "\n" else "\n]\n"


class Csv:
    """Comma-separated values with a header (RFC 4180, with LF line ends); objects and lists as JSON.

    On a terminal, what could act on it is spelled out; a file gets every value as it is.
    """

    separator = ""

    def __init__(self, columns: Sequence[str], *, terminal: bool) -> None:
        self._columns = columns
        self._terminal = terminal
        self.head = self._lines([columns])

    def page(self, rows: Sequence[Row]) -> str:
        """Return a line for each row."""
        return self._lines([_cell(row.get(name)) for name in self._columns] for row in rows)

    def tail(self) -> str:
        """Return nothing."""
        return ""

    def _lines(self, rows: Iterable[Sequence[str]]) -> str:
        import csv

        lines = _Lines()
        # With this line end CR and LF in a value are both quoted, in every version of Python.
        csv.writer(lines, lineterminator="\r\n").writerows(rows)
        text = "".join(f"{line[:-2]}\n" for line in lines)
        return visible(text, block=True) if self._terminal else text


class _Lines(list[str]):
    """A file for csv: each write is a line."""

    def write(self, line: str) -> None:
        self.append(line)


class Raw:
    """The message alone; on a terminal, what could act on it is spelled out."""

    head = ""
    separator = "--\n"

    def __init__(self, *, terminal: bool) -> None:
        self._terminal = terminal

    def page(self, rows: Sequence[Row]) -> str:
        """Return the messages, each ended by a line feed."""
        text = "".join(f"{row.get('message', '')}\n" for row in rows)
        return visible(text, block=True) if self._terminal else text

    def tail(self) -> str:
        """Return nothing."""
        return ""


class Text:
    """Aligned columns for the eye: time, level, host, service, message, then the attributes.

    Columns grow with what they have shown, and host and service only stand where some record has one. The lines of a
    message after its first are indented: no record can forge the beginning of another. Where rows have a `match`, those
    for which it is true are marked by `>`. `highlight` colours what matched.
    """

    head = ""

    def __init__(self, *, colour: bool, zone: tzinfo | None, highlight: "Highlight | None" = None) -> None:
        self._colour = colour
        self._zone = zone
        self._highlight = highlight if colour else None
        self._widths = {"level": 7, "host": 0, "service": 0}
        self.separator = self._paint("--", DIM) + "\n"

    def page(self, rows: Sequence[Row]) -> str:
        """Return the lines of the records."""
        for name, width in self._widths.items():
            widest = max((len(visible(str(row.get(name) or ""))) for row in rows), default=0)
            self._widths[name] = max(width, min(widest, _WIDEST))
        return "".join(map(self._record, rows))

    def tail(self) -> str:
        """Return nothing."""
        return ""

    def _record(self, row: Row) -> str:
        message = visible(str(row.get("message", "")).replace("\r\n", "\n").rstrip("\n"), block=True)
        first, *others = (self._highlight.mark(message) if self._highlight else message).split("\n")
        parts = [
            self._paint(local_time(row.get("timestamp"), self._zone), DIM),
            self._column(row, "level", LEVEL_COLOURS.get(str(row.get("level")), "")),
        ]
        for name in ("host", "service"):
            if self._widths[name]:
                colour = service_colour(str(row.get(name) or ""))
                parts.append(self._column(row, name, colour))
        parts += [first, *(self._pair(name, value) for name, value in _pairs(row))]
        margin = "" if "match" not in row else "> " if row["match"] else "  "
        lines = [" ".join(parts).rstrip(), *(_INDENT + line for line in others)]
        return "".join(f"{margin}{line}\n" for line in lines)

    def _column(self, row: Row, name: str, colour: str) -> str:
        value = visible(str(row.get(name) or "-"))
        return self._paint(value, colour) + " " * (self._widths[name] - len(value))

    def _pair(self, name: str, value: str) -> str:
        if not self._highlight:
            return self._paint(f"{name}={value}", DIM)
        return self._paint(f"{name}=", DIM) + self._highlight.value(name, value, DIM)

    def _paint(self, text: str, code: str) -> str:
        return paint(text, code) if self._colour else text


def service_colour(name: str) -> str:
    """Return the SGR code of a service or host: the same in every run."""
    return _SERVICE_COLOURS[crc32(name.encode("utf-8", "replace")) % len(_SERVICE_COLOURS)]


def local_time(value: Any, zone: tzinfo | None) -> str:
    """Write a time of the HTTP API in the zone, to the millisecond; what is no time is printed as it is."""
    try:
        moment = datetime.fromisoformat(str(value)).astimezone(zone)
    except (ValueError, OverflowError):
        return visible(str(value))
    text = moment.isoformat(" ", "milliseconds")
    return text.replace("+00:00", "Z") if zone else text[:23]


def _pairs(row: Row) -> Iterable[tuple[str, str]]:
    """Yield name and value of what has no column of its own."""
    for name in ("environment", "trace_id", "span_id"):
        if row.get(name):
            yield name, _value(row[name])
    attributes = row.get("attributes")
    if isinstance(attributes, dict):
        yield from flattened(attributes)


def flattened(attributes: Row) -> Iterable[tuple[str, str]]:
    """Yield the leaves of attributes: their dotted paths, and their values, bare where they are one plain word."""
    for key, value in attributes.items():
        for path, leaf in _leaves(key, value, 1):
            yield visible(path), _value(leaf)


def _leaves(path: str, value: Any, depth: int) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value and depth < _DEEPEST:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner, depth + 1)
    else:
        yield path, value


def _value(value: Any) -> str:
    """Write a value bare when it is one plain word, else as JSON."""
    if isinstance(value, str) and value and not any(char in value for char in " \"'=\t\r\n"):
        return visible(value)
    return compact(value)


def plain_value(value: Any) -> str:
    """Write text as it is but for what could act on a terminal, in one line; all else as JSON."""
    return visible(value) if isinstance(value, str) else compact(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else compact(value)


def table(columns: Sequence[str], rows: Sequence[Row], *, colour: bool, numbers: Sequence[str] = ("count",)) -> str:
    """Write rows under a header, in aligned columns; those in `numbers` are aligned right."""
    cells = [[visible(_cell(row.get(name))) or "-" for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    right = [name in numbers for name in columns]

    def line(values: Sequence[str]) -> str:
        padded = (v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    header = line([name.upper() for name in columns])
    lines = [paint(header, BOLD) if colour else header]
    for row, values in zip(rows, cells, strict=True):
        code = LEVEL_COLOURS.get(str(row.get("level")), "") if colour else ""
        lines.append(paint(line(values), code))
    return "\n".join(lines) + "\n"


def cost(stats: Sequence[str]) -> Iterable[str]:
    """Yield lines that say what answers cost, by their headers X-Logagg-Stats; none for no headers."""
    try:
        answers = [json.loads(each) for each in stats]
        skipped, read = (sum((Counter(each[name]) for each in answers), Counter()) for name in ("skipped", "read"))
        total = {
            name: sum(each[name] for each in answers)
            for name in ("batches", "records", "fetched_bytes", "cached_reads", "took_ms")
        }
    except (ValueError, KeyError, TypeError):
        yield "what the answer cost is told in a way that this client does not know"
        return
    if answers:
        yield f"{total['batches']:,} batches in range: {_counted(skipped)} skipped, {_counted(read)} read"
        yield (
            f"{total['records']:,} records looked at, {total['fetched_bytes']:,} bytes from PostgreSQL,"
            f" {total['cached_reads']:,} reads from the cache, {total['took_ms']:,.1f} ms"
        )


def counted(number: float, one: str, many: str = "") -> str:
    """Write a number with its noun: `1 batch`, `2 batches`; `many` is `one` with an s where it is not given."""
    return f"{number:,.0f} {one if number == 1 else many or one + 's'}"


def _counted(parts: Counter[str]) -> str:
    """Write a number and what it is made of: `5 (filter 3, order 2)`."""
    named = ", ".join(f"{visible(name)} {count:,}" for name, count in sorted(parts.items()))
    return f"{parts.total():,}" + (f" ({named})" if named else "")
