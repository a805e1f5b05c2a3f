"""Splunk's HTTP Event Collector to records: the format of its events.

https://docs.splunk.com/Documentation/Splunk/latest/Data/FormateventsforHTTPEventCollector

A body for `/services/collector` has objects, one after the other with or without a line each, or an array of them:
`{"time": 1.5, "host": .., "source": .., "sourcetype": .., "index": .., "event": .., "fields": {..}}`, in which the
event is a text or an object. A body for `/services/collector/raw` has lines, whose host, source, sourcetype and index
are in the query.

Time, host and source of the envelope are those of the record; `sourcetype` and `index` are attributes. An event that is
an object is mapped as any other, and so is what stands in `fields`; what the envelope says otherwise under the same
name is kept in the attribute `event`, or `fields`.

An answer is sent once all is durable, so a sender that asks later whether its `ackId` is indexed hears yes.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any, Final

import orjson

from logagg.protocols import jsontext
from logagg.protocols.clean import clean_text, to_text
from logagg.protocols.columns import Columnar
from logagg.protocols.http import Answer, HttpProtocol, Malformed, Request, Taken
from logagg.protocols.json_columns import FEW, decode_pieces, in_pieces
from logagg.protocols.json_lines import decode_sequence, read_values
from logagg.protocols.limits import few_enough
from logagg.protocols.mapping import from_object
from logagg.protocols.record import Decoded, Origin

_BASE: Final = "/services/collector"
#: Parameters of the query that say the same of all lines of a raw body.
_OF_LINES: Final = ("host", "source", "sourcetype", "index")
#: Text and code by status: https://docs.splunk.com/Documentation/Splunk/latest/Data/TroubleshootHTTPEventCollector.
_REFUSALS: Final = {
    413: ("Content too large", 27),
    503: ("Server is busy", 9),
}
#: Codes of what is wrong with the token, "Token is required" and "Invalid token"; the text says what it really is.
_OF_TOKENS: Final = {401: 2, 403: 4}
_NO_DATA: Final = ("No data", 5)
_INVALID: Final = ("Invalid data format", 6)
_HEALTHY: Final = ("HEC is healthy", 17)


def decode_events(body: bytes, origin: Origin) -> Decoded | Columnar:
    """Decode a body of events. Never raises; an event that cannot be read is a reject and costs no neighbour."""
    try:
        objects = _objects(body)
        if len(objects) >= FEW:
            return decode_pieces((list(map(_flat, some)) for some in in_pieces(objects)), origin)
        return Decoded([from_object(_flat(obj), origin) for obj in objects], [])
    except ValueError:
        return decode_sequence(body, origin, _flat)


def decode_raw(body: bytes, query: Mapping[str, str], origin: Origin) -> Decoded:
    """Decode a body of lines, one record each; blank lines are nothing. What the query says is said of each."""
    fields = {name: clean_text(query[name]) for name in _OF_LINES if query.get(name)}
    # Mapped once, and the same for all but for the text.
    first = from_object({**fields, "timestamp": origin.now.isoformat(), "message": ""}, origin)
    records = []
    for line in few_enough(body.split(b"\n")):
        text, replaced = to_text(line.removesuffix(b"\r"))
        if text and not text.isspace():
            records.append(first._replace(message=text, raw=line if replaced else None))
    return Decoded(records, [])


def _objects(body: bytes) -> list[dict[str, Any]]:
    """Read an array, or objects one after the other. Raises ValueError for what is for the lenient reader."""
    values = None if jsontext.has_nul(body) else read_values(body.strip())
    if values is None or set(map(type, values)) - {dict}:
        raise ValueError("for the lenient reader")
    return values


def _flat(envelope: dict[str, Any]) -> dict[str, Any]:
    """Make one object of the envelope, its event and its fields, under the names that `mapping` knows."""
    event, fields = envelope.pop("event", None), envelope.pop("fields", None)
    obj = envelope
    if not all(envelope.values()):
        obj = {name: value for name, value in envelope.items() if value is not None and value != ""}
    if "time" in obj and "timestamp" not in obj:
        obj["timestamp"] = obj.pop("time")
    if type(event) is dict:
        _merge(obj, event, "event")
    elif event is not None:
        _merge(obj, {"message": event}, "event")
    if type(fields) is dict:
        _merge(obj, fields, "fields")
    elif fields is not None:
        obj["fields"] = fields
    return obj


def _merge(obj: dict[str, Any], more: dict[str, Any], name: str) -> None:
    """Add what is not there yet; what is there with another value goes into an object of its own, by `name`."""
    if obj.keys().isdisjoint(more):
        obj.update(more)
        return
    others = {key: value for key, value in more.items() if key in obj and obj[key] != value}
    obj.update({key: value for key, value in more.items() if key not in obj})
    while name in obj:
        name = f"_{name}"
    if others:
        obj[name] = others


def _take(request: Request, origin: Origin, numbers: Iterator[int]) -> Taken:
    """Decode a body; raises Malformed when there is no event in it."""
    decoded: Decoded | Columnar
    if "/raw" in request.path:
        decoded = decode_raw(request.body, request.query, origin)
    else:
        decoded = decode_events(request.body, origin)
    if not len(decoded.records):
        if not decoded.rejects:
            raise Malformed(f"{_NO_DATA[0]}: a body of {len(request.body)} bytes")
        raise Malformed(f"{_INVALID[0]}: {decoded.rejects[0].reason}")
    more = {"ackId": next(numbers)} if _channel(request) else {}
    return Taken(decoded, _answer(200, ("Success", 0), **more))


def _channel(request: Request) -> bool:
    return bool(request.headers.get("x-splunk-request-channel") or request.query.get("channel"))


def _acks(request: Request) -> Answer:
    """Say of each number that it is indexed: it was told to the sender when it was."""
    try:
        numbers = jsontext.loads(request.body).value["acks"]
        return _answer(200, None, acks={str(int(number)): True for number in numbers})
    except (ValueError, TypeError, KeyError, OverflowError):
        return _answer(400, _INVALID)


def _refuse(status: int, why: str, _: Mapping[str, str]) -> Answer:
    if status in _OF_TOKENS:
        return _answer(status, (why, _OF_TOKENS[status]))
    if status in _REFUSALS:
        return _answer(status, _REFUSALS[status])
    if why.startswith(_NO_DATA[0]):
        return _answer(status, _NO_DATA)
    return _answer(status, _INVALID, **{"invalid-event-number": 0, "reason": why})


def _answer(status: int, told: tuple[str, int] | None, **more: Any) -> Answer:
    text = {"text": told[0], "code": told[1]} if told else {}
    return Answer(status, orjson.dumps({**text, **more}))


def splunk() -> HttpProtocol:
    """Return the protocol; it numbers the requests that come over a channel."""
    events = [f"{_BASE}{path}" for path in ("", "/event", "/event/1.0")]
    raw = [f"{_BASE}{path}" for path in ("/raw", "/raw/1.0")]
    health, acks = ([f"{_BASE}/{name}{version}" for version in ("", "/1.0")] for name in ("health", "ack"))
    return HttpProtocol(
        transport="splunk",
        routes=(
            *(("POST", path, "Store events (Splunk HEC)") for path in events),
            *(("POST", path, "Store lines (Splunk HEC)") for path in raw),
        ),
        take=partial(_take, numbers=count()),
        refuse=_refuse,
        ask={
            **{("GET", path): lambda _: _answer(200, _HEALTHY) for path in health},
            **{("POST", path): _acks for path in acks},
            # Docker's splunk driver asks so whether somebody is there, when a container starts.
            **{("OPTIONS", path): lambda _: Answer(200, content_type="text/plain") for path in events},
        },
    )


SPLUNK: Final = splunk()
