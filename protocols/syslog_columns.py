"""Many syslog frames to columns at once, half of the cost of one record after the other.

A frame is plain if it is RFC 5424 of version 1, or has PRI, time, host and tag of RFC 3164. Cutting texts at their
first blanks costs little; what a word means is found once for each different one. `syslog` is the reference: both give
the same records, and a test holds them to it. Frames that are not plain are odd: they go there, and their records take
their places between the others.
"""

from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import polars as pl

from logagg.protocols import jsontext
from logagg.protocols.clean import to_text
from logagg.protocols.columns import COLUMNS, TIME, Columnar, constant
from logagg.protocols.record import Decoded, Origin, Record
from logagg.protocols.stamps import Integers, microseconds
from logagg.protocols.syslog import ELEMENTS, HOST_TAG, NO_PRI, PRI, TIME_3164, ids_and_data, without_end
from logagg.protocols.syslog import decode_syslog as decode_one_by_one
from logagg.protocols.times import from_bsd, to_datetime

#: Fewer frames than this cost more as a polars frame than as records.
FEW: Final = 128
#: So many frames are looked at to see which form a chunk has.
_SAMPLES: Final = 8

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

#: PRI as one number, by what stands in its place.
_NUMBERS: Final = {text: facility * 8 + severity for text, (facility, severity) in PRI.items()}
_NUMBERS_5424: Final = {f"{text}1": number for text, number in _NUMBERS.items()}
_NUMBERS_3164: Final = _NUMBERS | {"": NO_PRI[0] * 8 + NO_PRI[1]}
_NIL: Final = frozenset({"-", ""})
_ENDS: Final = frozenset({b"\n", b"\0"})
_LEADING: Final = frozenset({" ", "\ufeff"})

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


#: A word of each frame.
_Column = Sequence[str]
_Optional = Sequence[str | None]


class _Words(NamedTuple):
    """What frames say, a value a frame in each."""

    #: PRI as one number.
    pri: Sequence[int]
    #: Microseconds since 1970.
    since: Sequence[int] | Integers
    host: _Optional
    service: _Optional
    message: _Column
    attributes: _Optional


class _Known(NamedTuple):
    """What frames do not say."""

    origin: Origin
    zone: tzinfo


class _Odd(Exception):
    """Too few frames are plain, or of one form."""


def decode_syslog(frames: Sequence[bytes], origin: Origin, zone: tzinfo = UTC) -> Decoded | Columnar:
    """Decode frames of one message each, as `syslog.decode_syslog` does. There are no rejects."""
    if len(frames) >= FEW:
        odd: set[int] = set()
        try:
            words = _words(_texts(frames), _Known(origin, zone), odd)
        except _Odd:
            return decode_one_by_one(frames, origin, zone)
        places = sorted(odd)
        records = decode_one_by_one([frames[place] for place in places], origin, zone).records
        return Columnar(_frame(words, origin, dict(zip(places, records, strict=True))), [])
    return decode_one_by_one(frames, origin, zone)


def _texts(frames: Sequence[bytes]) -> list[str]:
    """Return frames without their ends, as text; nothing for what is not UTF-8 or has a NUL, which makes it odd."""
    if not _ENDS.isdisjoint({frame[-1:] for frame in frames}):
        frames = list(map(without_end, frames))
    try:
        texts = b"\0".join(frames).decode().split("\0")
        if len(texts) == len(frames):
            return texts
    except UnicodeDecodeError:
        pass
    return ["" if replaced else text for text, replaced in map(to_text, frames)]


def _words(texts: list[str], known: _Known, odd: set[int]) -> _Words:
    """Read all in the form that most seem to have. What is not of it is odd; raises `_Odd` where that is too much."""
    forms = [_form(text) for text in texts[:: len(texts) // _SAMPLES]]
    form = max(forms, key=forms.count)
    if forms.count(form) * 4 < len(forms) * 3:
        raise _Odd
    words = form(texts, known, odd)
    if len(odd) * 4 > len(texts):
        raise _Odd
    return words


def _form(text: str) -> Callable[[list[str], _Known, set[int]], _Words]:
    start = text.find(">", 1, 5) + 1
    if text.startswith("1 ", start):
        return _rfc5424
    time = TIME_3164.match(text, start)
    if time is None:
        return _nothing
    return _iso if time[1][0].isdigit() else _bsd_padded if time[1][4] == " " else _bsd


def _nothing(texts: list[str], known: _Known, odd: set[int]) -> _Words:
    raise _Odd


def _columns(texts: list[str], count: int, odd: set[int]) -> list[_Column]:
    """Cut each text into so many words, the last of which is the rest. What has less is odd, and repeats others."""
    rows = [text.split(" ", count - 1) for text in texts]
    if set(map(len, rows)) != {count}:
        short = [place for place, row in enumerate(rows) if len(row) < count]
        whole = next((row for row in rows if len(row) == count), None)
        if whole is None:
            raise _Odd
        for place in short:
            rows[place] = whole
        odd.update(short)
    return list(zip(*rows, strict=True))


def _each(
    keys: Sequence[_Key], meaning: Callable[[_Key], _Value | None], odd: set[int], default: _Value
) -> list[_Value]:
    """Ask once for each different key. Places of those that mean nothing become odd, with the default for now."""
    found = {key: meaning(key) for key in set(keys)}
    without = {key for key, value in found.items() if value is None}
    if without:
        odd.update(place for place, key in enumerate(keys) if key in without)
    values = {key: default if value is None else value for key, value in found.items()}
    return [values[key] for key in keys]


def _rfc5424(texts: list[str], known: _Known, odd: set[int]) -> _Words:
    heads, stamps, hosts, apps, procids, msgids, data, messages = _columns(texts, 8, odd)
    pri = _each(heads, _NUMBERS_5424.get, odd, 0)
    since = _times(stamps, partial(_time, known.zone), odd)
    if set(data) != {"-"}:
        data, messages = _structured_data(data, messages, odd)
    if not _LEADING.isdisjoint({message[:1] for message in messages}):
        messages = [message.removeprefix(" ").removeprefix("\ufeff") for message in messages]
    ids = list(zip(procids, msgids, data, strict=True))
    told = {each: _attributes(ids_and_data(*each)) for each in set(ids)}
    attributes = [told[each] for each in ids]
    return _Words(pri, since, _named(hosts, known.origin.peer), _named(apps, None), messages, attributes)


def _structured_data(data: _Column, messages: _Column, odd: set[int]) -> tuple[_Column, _Column]:
    """Return data whole, and what is behind it: it was cut at its first blank, if it has one."""
    found, behind = list(data), list(messages)
    for place, word in enumerate(data):
        if word == "-":
            continue
        rest = f"{word} {messages[place]}"
        elements = ELEMENTS.match(rest)
        if elements:
            found[place], behind[place] = elements[0], rest[elements.end() + 1 :]
        else:
            found[place] = "-"
            odd.add(place)
    return found, behind


def _named(names: _Column, nil: str | None) -> _Optional:
    return names if _NIL.isdisjoint(names) else [nil if name in _NIL else name for name in names]


def _times(stamps: _Column, read_one: Callable[[str], int | None], odd: set[int]) -> Sequence[int] | Integers:
    since = microseconds(stamps)
    return _each(stamps, read_one, odd, 0) if since is None else since


def _time(zone: tzinfo, stamp: str) -> int | None:
    time = to_datetime(stamp, zone) if stamp[4:5] == "-" else None
    return None if time is None else _since(time)


def _attributes(attributes: dict[str, Any]) -> str | None:
    return jsontext.dumps(attributes) if attributes else None


def _iso(texts: list[str], known: _Known, odd: set[int]) -> _Words:
    """`<13>2026-10-11T22:14:15+02:00 host tag: message`."""
    heads, hosts, tags, messages = _columns(texts, 4, odd)
    starts = [head.find(">", 1, 5) + 1 for head in heads]
    pri = _each([head[:start] for head, start in zip(heads, starts, strict=True)], _NUMBERS_3164.get, odd, 0)
    stamps = [head[start:] for head, start in zip(heads, starts, strict=True)]
    since = _times(stamps, partial(_time_3164, known.zone), odd)
    return _Words(pri, since, *_host_and_tag(hosts, tags, messages, odd))


def _time_3164(zone: tzinfo, stamp: str) -> int | None:
    match = TIME_3164.fullmatch(f"{stamp} ")
    return _time(zone, stamp) if match and match[1] == stamp else None


def _bsd(texts: list[str], known: _Known, odd: set[int]) -> _Words:
    """`<13>Oct 11 22:14:15 host tag: message`."""
    return _rfc3164(_columns(texts, 6, odd), known, odd)


def _bsd_padded(texts: list[str], known: _Known, odd: set[int]) -> _Words:
    """`<13>Oct  1 22:14:15 host tag: message`: one word more, an empty one."""
    return _rfc3164(_columns(texts, 7, odd), known, odd)


def _rfc3164(columns: list[_Column], known: _Known, odd: set[int]) -> _Words:
    *heads, hosts, tags, messages = columns
    pri, since = zip(*_each(list(zip(*heads, strict=True)), partial(_head, known), odd, (0, 0)), strict=True)
    return _Words(pri, since, *_host_and_tag(hosts, tags, messages, odd))


def _head(known: _Known, words: tuple[str, ...]) -> tuple[int, int] | None:
    """Return PRI and time."""
    text = " ".join(words)
    start = text.find(">", 1, 5) + 1
    pri, stamp = _NUMBERS_3164.get(text[:start]), text[start:]
    match = TIME_3164.fullmatch(f"{stamp} ")
    if pri is None or match is None or match[1] != stamp:
        return None
    time = from_bsd(stamp, known.origin.now, known.zone)
    return None if time is None else (pri, _since(time))


def _host_and_tag(
    hosts: _Column, tags: _Column, messages: _Column, odd: set[int]
) -> tuple[_Column, _Column, _Column, _Optional]:
    """Return hosts, services, messages and attributes."""
    none: tuple[str, str | None] = ("", None)
    services, attributes = zip(*_each(tags, _tag, odd, none), strict=True)
    return _each(hosts, _host, odd, ""), services, messages, attributes


def _host(word: str) -> str | None:
    match = HOST_TAG.fullmatch(f"{word} ")
    return word if match and match[1] == word else None


def _tag(word: str) -> tuple[str, str | None] | None:
    """Return service and attributes; None if this word is not all of a tag."""
    match = HOST_TAG.fullmatch(f"host {word} ")
    return (match[2], _attributes({"procid": match[3]} if match[3] else {})) if match else None


def _frame(words: _Words, origin: Origin, odd: dict[int, Record]) -> pl.DataFrame:
    """Make the columns, with these records at their places."""
    count = len(words.message)
    pri, since = np.array(words.pri, dtype=np.uint8), np.array(words.since, dtype=np.int64)
    texts: dict[str, Any] = dict(zip(_Words._fields[2:], words[2:], strict=True))
    if odd:
        texts = {name: list(values) for name, values in texts.items()} | {"raw": [None] * count}
        for place, record in odd.items():
            pri[place] = (record.facility or 0) * 8 + record.severity
            since[place] = _since(record.timestamp)
            for name, values in texts.items():
                values[place] = getattr(record, name)
    columns = constant(origin.environment, origin.peer, origin.now, count) | {
        "timestamp": pl.Series("timestamp", since).cast(TIME),
        "severity": pl.Series("severity", (pri & 7).view(np.int8)),
        "facility": pl.Series("facility", (pri >> 3).view(np.int8)),
    }
    columns |= {name: pl.Series(name, values, dtype=COLUMNS[name]) for name, values in texts.items()}
    return pl.DataFrame([columns[name] for name in COLUMNS])


def _since(time: datetime) -> int:
    """Return microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND
