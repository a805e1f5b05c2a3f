"""Syslog to records: RFC 5424, RFC 3164, and what senders make of them. Nothing is refused, whatever the bytes.

A frame is tried as RFC 5424; then as PRI, time, host and tag of RFC 3164, of which all but the time may be absent, and
the time too where there is a PRI; else it is no syslog, and all of it is the message. What a header does not explain
stays in the message, which is kept byte for byte but for its ends: one LF, CR LF or NUL behind it and, in RFC 5424, one
blank (rsyslog's %msg% brings its own) and a BOM before it.

Attributes are `procid`, `msgid`, `sd` (structured data: {"id": {"name": "value"}}, a list of values where a name
repeats), and `timestamp` where it could not be used.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple

from logagg.protocols import jsontext
from logagg.protocols.clean import to_text
from logagg.protocols.levels import severity_of
from logagg.protocols.record import NOTE, Decoded, Origin, Record
from logagg.protocols.times import from_bsd, to_datetime, trouble

#: Facility and severity.
_Header = tuple[int, int]
#: What a frame says: header, time as it stands, time, host, service, message. None is what it does not say.
_Parts = tuple[_Header, str | None, datetime | None, str | None, str | None, str]

#: Facility user, severity notice: of a frame without PRI, RFC 3164 section 4.3.3.
NO_PRI: _Header = (1, 5)
#: By the text of the PRI, RFC 5424 section 6.2.1.
PRI: dict[str, _Header] = {f"<{number}>": divmod(number, 8) for number in range(192)}
_VERSION = re.compile(r"[1-9][0-9]{0,2} ")
_DATE = re.compile(r"[+-]?[0-9]{4,9}-[0-9]{2}-[0-9]{2}")

# RFC 5424 section 6.3, but less strict: names of any length, a ] within a value, blanks before the ] of an element.
_NAME = r'[^\s=\]"]+'
_VALUE = r'"(?:[^"\\]|\\.)*"'
ELEMENTS = re.compile(rf"(?:\[{_NAME}(?: +{_NAME}={_VALUE})* *\])+(?= |\Z)", re.DOTALL)
_ELEMENT = re.compile(rf"\[({_NAME})((?: +{_NAME}={_VALUE})*) *\]", re.DOTALL)
_PARAM = re.compile(rf"({_NAME})=({_VALUE})", re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\\]])')

_BSD_TIME = r"[A-Z][a-z]{2} {1,2}[0-9]{1,2} (?:[0-9]{4} )?[0-9]{2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]{1,9})?"
_ISO_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9:]{5,8}(?:[.,][0-9]+)?(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})?"
TIME_3164 = re.compile(rf" ?({_BSD_TIME}|{_ISO_TIME}):?(?: |\Z)")
#: Cisco IOS: a counter and the host before the time, a mark on it, a zone behind it.
_CISCO = re.compile(rf"(?:([0-9]*): )?(?:([\w.-]+): )?[*.]?({_BSD_TIME})(?: [A-Z]{{3,4}})?: ")

#: A host, and a tag: a word and a colon, [pid] between them or not. A word with a colon behind it is no host.
HOST_TAG = re.compile(
    r"(?:([A-Za-z0-9_.:%-]{1,255}(?<=[A-Za-z0-9_])) )?"
    r"(?: ?([^ \t\n\[\]:]{1,128}(?::[^ \t\n\[\]:]{1,128}){0,4})(?:\[([^ \t\n\]]{0,128})\]:|:(?= |\Z)) ?)?"
)
_ODD_TAGS = (
    re.compile(r"([A-Z][\w.-]*(?: [A-Z(][\w.()-]*){1,3})\[([0-9]+)\]: ?"),  # macOS: Google Chrome Helper[123]:
    re.compile(r"([\w.-]+\[[0-9]+\] \([^\s()]+\))(): ?"),  # macOS: com.apple.xpc.launchd[1] (name[123]):
    re.compile(r"([^\s\[\]]+)\[([0-9]+)\](?: |\Z)"),  # no colon
    re.compile(r"(?=\S{32} )([^\s\[\]]+)\[([0-9]*) "),  # rsyslog cuts a tag to 32 characters, and so its pid
)
#: Without a time there is no host, and a word is a tag only if it looks like the name of a program.
_BARE_TAG = re.compile(r"([A-Za-z_][\w./-]{0,47})(?:\[([0-9]+)\])?: ")

_new = tuple.__new__


class _Task(NamedTuple):
    """What is the same for all frames of a call."""

    origin: Origin
    zone: tzinfo
    #: Times without a year that were read already: many lines of a burst have the same second.
    times: dict[str, datetime | None]


def decode_syslog(frames: Iterable[bytes], origin: Origin, zone: tzinfo = UTC) -> Decoded:
    """Decode frames of one message each; times without a zone are in `zone`. There are no rejects."""
    task = _Task(origin, zone, {})
    records = []
    for frame in frames:
        text, replaced = to_text(without_end(frame))
        attributes: dict[str, Any] = {}
        parts = _read(text, task, attributes)
        records.append(_record(parts, origin, attributes, frame if replaced else None))
    return Decoded(records, [])


def without_end(frame: bytes) -> bytes:
    """Take LF, CR LF or NUL off, one of them."""
    if frame.endswith((b"\n", b"\0")):
        return frame[:-2] if frame.endswith(b"\r\n") else frame[:-1]
    return frame


def _record(parts: _Parts, origin: Origin, attributes: dict[str, Any], raw: bytes | None) -> Record:
    (facility, severity), stamp, timestamp, host, service, message = parts
    now, _, peer, environment = origin
    if timestamp is None:
        timestamp = now
        if stamp is not None:
            attributes["timestamp"] = stamp
            attributes[NOTE] = trouble(stamp)
    told = jsontext.dumps(attributes) if attributes else None
    sender = (environment, host or peer, service, peer)
    return _new(Record, (timestamp, now, severity, facility, *sender, message, told, None, None, raw))


def _read(text: str, task: _Task, attributes: dict[str, Any]) -> _Parts:
    start = text.find(">", 1, 5) + 1
    header = PRI.get(text[:start])
    if header is None:
        start = 0
    if text[start : start + 2] == "1 " or (text[start : start + 1].isdigit() and _VERSION.match(text, start)):
        parts = _rfc5424(text, header, task.zone, attributes)
        if parts is not None:
            return parts
    # Lines of a burst have the same second: what was read once needs no pattern.
    stamp, end = text[start : start + 15], start + 16
    if stamp not in task.times or text[end - 1 : end] != " ":
        time = TIME_3164.match(text, start)
        if time is None:
            return _without_time(text, start, header, task, attributes)
        stamp, end = time[1], time.end()
    return _behind_time(text, end, header or NO_PRI, stamp, task, attributes)


def _rfc5424(text: str, header: _Header | None, zone: tzinfo, attributes: dict[str, Any]) -> _Parts | None:
    """Read a header of six words and the rest; None if it is none. Fills `attributes` only if it is one."""
    words = text.split(" ", 6)
    if len(words) < 7:
        return None
    _, stamp, host, app, procid, msgid, message = words
    timestamp = None
    if stamp != "-":
        timestamp = to_datetime(stamp, zone) if stamp[4:5] == "-" else None
        if timestamp is None and not _DATE.match(stamp):
            return None
    elif header is None:
        return None  # a text that begins with a number and a hyphen
    elements = ELEMENTS.match(message) if message.startswith("[") else None
    attributes |= ids_and_data(procid, msgid, elements[0] if elements else "-")
    if elements:
        message = message[elements.end() + 1 :]
    elif message.startswith("- ") or message == "-":
        message = message[2:]
    if message.startswith((" ", "\ufeff")):
        message = message.removeprefix(" ").removeprefix("\ufeff")
    # A hyphen is NILVALUE, RFC 5424 section 6.
    return (
        header or NO_PRI,
        None if stamp == "-" else stamp,
        timestamp,
        None if host == "-" else host,
        None if app in {"-", ""} else app,
        message,
    )


def ids_and_data(procid: str, msgid: str, data: str) -> dict[str, Any]:
    """Return attributes for three words of a header of RFC 5424, the last of which may be a match of ELEMENTS."""
    attributes: dict[str, Any] = {}
    if procid != "-":
        attributes["procid"] = procid
    if msgid != "-":
        attributes["msgid"] = msgid
    if data != "-":
        attributes["sd"] = _structured_data(data)
    return attributes


def _structured_data(text: str) -> dict[str, dict[str, str | list[str]]]:
    data: dict[str, dict[str, str | list[str]]] = {}
    for name, params in _ELEMENT.findall(text):
        element = data.setdefault(name, {})
        for key, quoted in _PARAM.findall(params):
            value = quoted[1:-1]
            if "\\" in value:
                value = _ESCAPED.sub(r"\1", value)
            before = element.get(key)
            if before is None:
                element[key] = value
            else:
                element[key] = [*before, value] if isinstance(before, list) else [before, value]
    return data


def _behind_time(text: str, place: int, header: _Header, stamp: str, task: _Task, attributes: dict[str, Any]) -> _Parts:
    """Read what follows the time of RFC 3164."""
    times = task.times
    if stamp not in times:
        iso = stamp[0].isdigit()
        times[stamp] = to_datetime(stamp, task.zone) if iso else from_bsd(stamp, task.origin.now, task.zone)
    host = tag = pid = None
    if match := HOST_TAG.match(text, place):
        host, tag, pid = match.groups()
        place = match.end()
    if tag is None:
        for pattern in _ODD_TAGS:
            if match := pattern.match(text, place):
                tag, pid = match.groups()
                place = match.end()
                break
    if pid:
        attributes["procid"] = pid
    return header, stamp, times[stamp], host, tag, text[place:]


def _without_time(text: str, start: int, header: _Header | None, task: _Task, attributes: dict[str, Any]) -> _Parts:
    """Read a text behind a PRI; or a text alone, which is no syslog."""
    if header is None:
        attributes[NOTE] = "not syslog"
        return NO_PRI, None, None, None, None, text
    if cisco := _CISCO.match(text, start):
        counter, host, stamp = cisco.groups()
        if counter:
            attributes["counter"] = counter
        header, stamp, timestamp, _, tag, message = _behind_time(text, cisco.end(), header, stamp, task, attributes)
        return header, stamp, timestamp, host, tag, message
    tag = pid = None
    match = _BARE_TAG.match(text, start)
    if match and severity_of(match[1]) is None:  # ERROR: is no program
        tag, pid = match.groups()
        start = match.end()
    if pid:
        attributes["procid"] = pid
    return header, None, None, None, tag, text[start:]
