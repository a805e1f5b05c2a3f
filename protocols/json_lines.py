"""JSON to records: one object a line over TCP, or many in one body over HTTP.

A line may also be an array of objects, or several of either one behind the other: fluent-bit sends all of a flush so.
What orjson refuses is read once more by a lenient reader; what that refuses too is a reject, with the place.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import orjson

from logagg.protocols import jsontext
from logagg.protocols.limits import few_enough
from logagg.protocols.mapping import from_object
from logagg.protocols.record import Decoded, Origin, Reject

#: An object to an object.
Make: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]

_BACKSLASH = ord("\\")
#: What may stand between the objects of a body; RS is of RFC 7464. Arrays of objects are opened.
_BETWEEN = re.compile(r"[\s,\[\]\x1e]*")
#: A string, without its end too, or a bracket.
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
#: Where one of several objects or arrays of a line ends and the next begins.
_ENDS = re.compile(rb"[}\]]\s*,?\s*[{\[]")
#: So many times a text may have "}{" for the quick reader, which begins again each time.
_MOST_JOINED = 16
#: So many places without an end in a body that is not by line: what follows is read by line after all, which is linear.
_MAX_BAD = 100


def decode_lines(frames: Iterable[bytes], origin: Origin) -> Decoded:
    """Decode frames of one JSON object each. A frame of blanks is nothing; any other is a record or a reject.

    A frame of several objects is so many records when it holds nothing else.
    """
    decoded = Decoded([], [])
    add = decoded.records.append
    loads, nul = orjson.loads, jsontext.NUL_ESCAPE
    for frame in frames:
        try:
            # One byte is looked for first: three times as fast, and most lines have no backslash.
            obj = None if _BACKSLASH in frame and nul in frame else loads(frame)
            if type(obj) is dict:
                add(from_object(obj, origin))
                continue
        except ValueError:
            pass  # the lenient reader has the last word
        if not frame.isspace():
            _decode_odd(frame, origin, decoded)
    return decoded


def decode_body(body: bytes, origin: Origin) -> Decoded:
    """Decode a JSON array of objects, one object a line, or objects one after the other, with or without blanks.

    So `{"records": [{"value": {...}}, ...]}`, the form of Kafka's REST proxy (rsyslog: omhttp, batch.format
    "kafkarest"). A bad item becomes a reject, its neighbours survive. A body of blanks is nothing.
    """
    values = None if jsontext.NUL_ESCAPE in body else values_of(body)
    if values is None:
        return _decode_parts(body, origin)
    decoded = Decoded([], [])
    for value in values:
        _add(decoded, value, origin, b"", _as_it_is, replaced=False)
    return decoded


def values_of(body: bytes) -> list[Any] | None:
    """Return the items of a body as `decode_body` takes them, if orjson reads it as it stands; else None."""
    values = read_values(body)
    one = values is not None and len(values) == 1 and not body.lstrip().startswith(b"[")
    return _of_kafka(values[0]) if values and one else values


def read_values(body: bytes) -> list[Any] | None:
    """Return the items of an array, or values a line each or one after the other, if orjson reads them; else None."""
    for read in (orjson.loads, _by_line, _joined, _tried):
        try:
            value = read(body)
        except ValueError:
            continue
        return few_enough(value) if isinstance(value, list) else [value]
    return None


def _by_line(body: bytes) -> list[Any] | None:
    lines = body.split(b"\n")
    values = list(map(orjson.loads, filter(None, lines)))
    if any(isinstance(value, list) for value in values):
        raise ValueError("an array a line is for the other reader")
    return values


def _joined(body: bytes) -> list[Any]:
    """Read objects with a line end or nothing between them. As many commas as part items: none ends a text."""
    joined = body.replace(b'}{"', b'},{"').replace(b"}\n{", b"},\n{")
    values: list[Any] = orjson.loads(b"[%b]" % joined)
    if len(values) != len(joined) - len(body) + 1 or isinstance(values[0], list):
        raise ValueError("not only objects one after the other")
    return values


def _tried(body: bytes) -> list[Any]:
    """Read objects one after the other. Where "}{" is part of a text, what is before it is no JSON."""
    values, begun, bad = list[Any](), b"", 0
    for part in body.replace(b"}{", b"}\n{").split(b"\n"):
        begun += part
        try:
            values.append(orjson.loads(begun))
            begun, bad = b"", 0
        except orjson.JSONDecodeError:
            bad += 1
            if bad > _MOST_JOINED:
                raise
    if bad or not values or any(isinstance(value, list) for value in values):
        raise ValueError("for the lenient reader")
    return values


def _of_kafka(value: Any) -> list[Any]:
    records = value.get("records") if isinstance(value, dict) and len(value) == 1 else None
    if isinstance(records, list) and all(isinstance(record, dict) and "value" in record for record in records):
        return [record["value"] for record in records]
    return [value]


def _as_it_is(obj: dict[str, Any]) -> dict[str, Any]:
    return obj


def _decode_odd(frame: bytes, origin: Origin, decoded: Decoded, make: Make = _as_it_is) -> None:
    try:
        value, replaced = jsontext.loads(frame)
    except ValueError as error:
        # What is behind the first value may be another one.
        some = decode_sequence(frame, origin, make) if _ENDS.search(frame) else Decoded([], [])
        if len(some.records) > 1 and not some.rejects:
            decoded.records.extend(some.records)
        else:
            _reject(decoded, origin, str(error), frame)
        return
    if isinstance(value, list) and value and isinstance(value[0], dict):
        some = decode_sequence(frame, origin, make)
        decoded.records.extend(some.records)
        decoded.rejects.extend(some.rejects)
    else:
        _add(decoded, value, origin, frame, make, replaced=replaced)


def _decode_parts(body: bytes, origin: Origin) -> Decoded:
    first = body.strip().partition(b"\n")[0]
    if not first:
        return Decoded([], [])
    try:
        by_line = not isinstance(jsontext.loads(first).value, list)
    except ValueError:
        by_line = False
    if by_line:
        return decode_lines(few_enough([*filter(None, body.split(b"\n"))]), origin)
    return decode_sequence(body, origin)


def decode_sequence(body: bytes, origin: Origin, make: Make = _as_it_is) -> Decoded:
    """Decode objects one after the other, wherever their lines end. A bad one ends where its brackets close.

    `make` makes of each object the one that is mapped.
    """
    decoded = Decoded([], [])
    text, reader, bad = jsontext.to_lenient(body), jsontext.LenientReader(), 0
    place = _behind(text, 0)
    if place == len(text):
        _reject(decoded, origin, f"no JSON object in {len(body)} bytes", body)
    while place < len(text):
        if bad == _MAX_BAD:
            for rest in jsontext.to_bytes(text[place:]).split(b"\n"):
                if rest and not rest.isspace():
                    _decode_odd(rest, origin, decoded, make)
            break
        try:
            value, end, replaced = reader.read(text, place)
        except ValueError as error:
            line = text.find("\n{", place) + 1 or len(text)
            end = _closed(text, place, line)
            bad += end == line
            _reject(decoded, origin, str(error), jsontext.to_bytes(text[place:end]))
        else:
            _add(decoded, value, origin, jsontext.to_bytes(text[place:end]), make, replaced=replaced)
        place = _behind(text, end)
        few_enough(decoded.records)
    return decoded


def _closed(text: str, place: int, line: int) -> int:
    """Return where the object at `place` closes; `line`, where the next begins a line, if it does not before."""
    depth = 0
    for found in _BRACKET.finditer(text, place, line) if text[place] == "{" else ():
        depth += (found[0] in "{[") - (found[0] in "}]")
        if not depth:
            return found.end()
    return line


def _behind(text: str, place: int) -> int:
    between = _BETWEEN.match(text, place)
    return between.end() if between else place


def _add(decoded: Decoded, value: Any, origin: Origin, raw: bytes, make: Make, *, replaced: bool) -> None:
    """Add a record, or a reject for what is no object or too deep to be written."""
    try:
        if not isinstance(value, dict):
            raise ValueError(f"JSON {jsontext.name_of(value)}, expected an object")
        decoded.records.append(from_object(make(value), origin, raw if replaced else None))
    except ValueError as error:
        _reject(decoded, origin, str(error), raw or jsontext.dumps(value).encode())


def _reject(decoded: Decoded, origin: Origin, reason: str, raw: bytes) -> None:
    decoded.rejects.append(Reject(origin.now, origin.transport, origin.peer, reason, raw))
