"""JSON to records: one object a line over TCP, or many in one body over HTTP.

What orjson refuses is read once more by a lenient reader; what that refuses too is a reject, with the place.
"""

import re
from collections.abc import Iterable
from typing import Any

import orjson

from logagg.protocols import jsontext
from logagg.protocols.mapping import from_object
from logagg.protocols.record import Decoded, Origin, Reject

_BACKSLASH = ord("\\")
#: What may stand between the objects of a body; RS is of RFC 7464. Arrays of objects are opened.
_BETWEEN = re.compile(r"[\s,\[\]\x1e]*")
#: So many bad places in a body that is not by line: what follows them is read by line after all, which is linear.
_MAX_BAD = 100


def decode_lines(frames: Iterable[bytes], origin: Origin) -> Decoded:
    """Decode frames of one JSON object each. A frame of blanks is nothing; any other is a record or a reject."""
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

    A bad item becomes a reject, its neighbours survive. A body of blanks is nothing.
    """
    decoded = Decoded([], [])
    try:
        if jsontext.NUL_ESCAPE in body:
            raise ValueError("for the lenient reader")
        value = orjson.loads(body)
    except ValueError:
        return _decode_parts(body, origin)
    for item in value if isinstance(value, list) else [value]:
        _add(decoded, item, origin, b"", replaced=False)
    return decoded


def _decode_odd(frame: bytes, origin: Origin, decoded: Decoded) -> None:
    try:
        value, replaced = jsontext.loads(frame)
    except ValueError as error:
        _reject(decoded, origin, str(error), frame)
    else:
        _add(decoded, value, origin, frame, replaced=replaced)


def _decode_parts(body: bytes, origin: Origin) -> Decoded:
    first = body.strip().partition(b"\n")[0]
    if not first:
        return Decoded([], [])
    try:
        by_line = not isinstance(jsontext.loads(first).value, list)
    except ValueError:
        by_line = False
    if by_line:
        return decode_lines(filter(None, body.split(b"\n")), origin)
    return _decode_sequence(body, origin)


def _decode_sequence(body: bytes, origin: Origin) -> Decoded:
    """Decode objects one after the other, wherever their lines end. Behind a bad place, go on where a line begins."""
    decoded = Decoded([], [])
    text, reader, bad = jsontext.to_lenient(body), jsontext.LenientReader(), 0
    place = _behind(text, 0)
    if place == len(text):
        _reject(decoded, origin, f"no JSON object in {len(body)} bytes", body)
    while place < len(text):
        if bad == _MAX_BAD:
            rest = decode_lines(filter(None, jsontext.to_bytes(text[place:]).split(b"\n")), origin)
            return Decoded(decoded.records + rest.records, decoded.rejects + rest.rejects)
        try:
            value, end, replaced = reader.read(text, place)
        except ValueError as error:
            bad += 1
            end = text.find("\n{", place) + 1 or len(text)
            _reject(decoded, origin, str(error), jsontext.to_bytes(text[place:end]))
        else:
            _add(decoded, value, origin, jsontext.to_bytes(text[place:end]), replaced=replaced)
        place = _behind(text, end)
    return decoded


def _behind(text: str, place: int) -> int:
    between = _BETWEEN.match(text, place)
    return between.end() if between else place


def _add(decoded: Decoded, value: Any, origin: Origin, raw: bytes, *, replaced: bool) -> None:
    """Add a record, or a reject for what is no object or too deep to be written."""
    try:
        if not isinstance(value, dict):
            raise ValueError(f"JSON {jsontext.name_of(value)}, expected an object")
        decoded.records.append(from_object(value, origin, raw if replaced else None))
    except ValueError as error:
        _reject(decoded, origin, str(error), raw or jsontext.dumps(value).encode())


def _reject(decoded: Decoded, origin: Origin, reason: str, raw: bytes) -> None:
    decoded.rejects.append(Reject(origin.now, origin.transport, origin.peer, reason, raw))
