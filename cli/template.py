r"""A line of the operator's own making for each record: `{timestamp} {level:<8} {attributes.user.id} {message}`.

Braces hold the name of a field, and after a colon how wide it is, as in Python's format: `<8` `>8` `^8` `.20`. Doubled
braces are braces, `\t` and `\n` a tab and a line feed. A template reads fields of records and nothing else.
"""

import re
from collections.abc import Sequence
from datetime import tzinfo
from string import Formatter
from typing import TYPE_CHECKING, NamedTuple

from logagg.cli.output import LEVEL_COLOURS, RECORD_FIELDS, Row, local_time, plain_value, service_colour
from logagg.cli.terminal import Failure, paint

if TYPE_CHECKING:
    from logagg.cli.highlight import Highlight

_SPEC = re.compile(r"(?:[^{}]?[<>^])?\d{0,4}(?:\.\d{1,4})?")
_TIMES = {"timestamp", "received_at"}
_ATTRIBUTES = "attributes."


class Part(NamedTuple):
    """Text as it stands, then a field; the last part may have none."""

    before: str
    field: str | None
    spec: str


def parse(template: str) -> list[Part]:
    """Take a template apart. Raises Failure that says what is wrong, and which fields there are."""
    try:
        found = list(Formatter().parse(template.replace("\\t", "\t").replace("\\n", "\n")))
    except ValueError as error:
        raise Failure(f"--template: {error}; braces hold a field, and a brace itself is written twice") from None
    parts = [Part(before, field, spec or "") for before, field, spec, _ in found]
    for (_, field, _, conversion), part in zip(found, parts, strict=True):
        if field is None:
            continue
        if field not in RECORD_FIELDS and not (field.startswith(_ATTRIBUTES) and field != _ATTRIBUTES):
            known = " ".join(RECORD_FIELDS)
            raise Failure(f"--template: no field {field!r}; there are {known}, and attributes.NAME for any attribute")
        if conversion or not _SPEC.fullmatch(part.spec):
            wrong = f"!{conversion}" if conversion else f":{part.spec}"
            raise Failure(f"--template: {{{field}{wrong}}} is no width; such are {{{field}:<8}} and {{{field}:>8.20}}")
    return parts


class Template:
    """Records as lines by a template; nothing in a record acts on a terminal or makes another line."""

    head = ""
    separator = "--\n"

    def __init__(
        self, template: str, *, zone: tzinfo | None, colour: bool, highlight: "Highlight | None" = None
    ) -> None:
        self._parts = parse(template)
        self._zone = zone
        self._colour = colour
        self._highlight = highlight

    def page(self, rows: Sequence[Row]) -> str:
        """Return a line for each row."""
        return "".join("".join(self._part(part, row) for part in self._parts) + "\n" for row in rows)

    def tail(self) -> str:
        """Return nothing."""
        return ""

    def _part(self, part: Part, row: Row) -> str:
        if part.field is None:
            return part.before
        text = format(self._text(part.field, row), part.spec)
        return part.before + (self._painted(part.field, text, row) if self._colour else text)

    def _text(self, field: str, row: Row) -> str:
        value = attribute(row, field.removeprefix(_ATTRIBUTES)) if field.startswith(_ATTRIBUTES) else row.get(field)
        if value is None:
            return ""
        return local_time(value, self._zone) if field in _TIMES else plain_value(value)

    def _painted(self, field: str, text: str, row: Row) -> str:
        if field == "level":
            return paint(text, LEVEL_COLOURS.get(str(row.get("level")), ""))
        if field in ("host", "service"):
            return paint(text, service_colour(str(row.get(field) or "")))
        if field == "message" and self._highlight:
            return self._highlight.mark(text)
        if field.startswith(_ATTRIBUTES) and self._highlight:
            return self._highlight.value(field.removeprefix(_ATTRIBUTES), text, "")
        return text


def attribute(row: Row, path: str) -> object:
    """Return the attribute at a dotted path; one with the dots in its own name comes first. None when there is none."""
    found: object = row.get("attributes")
    if isinstance(found, dict) and path in found:
        return found[path]
    for name in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found
