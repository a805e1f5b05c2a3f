"""Bytes of any kind through framer and decoder, as a listener joins them: nothing is raised, nothing is lost."""

from __future__ import annotations

import itertools
import json
import string
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.collector.wiring import json_lines, syslog
from logagg.protocols.framing import JsonFramer, LineFramer, SyslogFramer
from logagg.protocols.json_columns import decode_body
from logagg.protocols.record import Decoded, Origin, Record, Reject
from logagg.sinks.writing import columns_of

if TYPE_CHECKING:
    from logagg.protocols.session import Session

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORIGIN = Origin(NOW, "fuzz", "192.0.2.9", None)
#: Enough neighbours for the ways that take many at once.
MANY = 70
LONGEST = 60_000
BLANKS = string.whitespace.encode()

#: What hostile and broken senders put between and into frames.
BITS = [
    b"\n", b"\r\n", b"\0", b"\0<", b"\xff\xfe", b"\xed\xa0\x80", b"\\u0000", b"\\ud800", b"\xef\xbb\xbf", b"\x1e",
    b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"NaN", b"-Infinity", b"1e200000", b"9" * 900, b"[" * 20_000,
    b'{"a":' * 5000, b'{"timestamp":"300000-01-01T00:00:00Z"}', b'{"timestamp":""}', b'{"timestamp":1e300,"level":1e9}',
    b'{"message":null,"message":{"message":[]}}', b'{"":{"":""}}', b"\\.", b"\n\\.\n", b"<13>", b"<999>", b"<", b"1 ",
    b"- ", b"4 <1>a", b"99999999 ", b"0 ", b"12", b"Feb 30 25:61:61 ", b"300000-01-01T00:00:00Z ", b'[a b="', b'"] ',
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"2W\0\0\0\1", b"1 open 0\n",
]  # fmt: skip
noise = st.lists(st.sampled_from(BITS) | st.binary(max_size=12), max_size=6).map(b"".join)
#: What has no end of a line in it, and begins no counted frame.
line = noise.map(lambda data: b"~" + data.replace(b"\n", b" ").replace(b"\0", b" "))
places = st.lists(st.integers(0, 1 << 20), max_size=6)


def good(number: int) -> bytes:
    return b'{"timestamp":"2026-11-22T11:00:00Z","level":"INFO","service":"good","message":"good %d"}' % number


def good_syslog(number: int) -> bytes:
    return b"<13>1 2026-11-22T11:00:00Z host good - - - good %d" % number


def pieces(stream: bytes, at: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in at), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(bounds)]


def taken(session: Session, parts: list[bytes]) -> tuple[list[Record], list[Reject]]:
    """Do what a connection does with its reads."""
    turns = [turn for part in parts if part for turn in session.feed(part, ORIGIN)] + session.close(ORIGIN)
    records = [record for turn in turns for record in rows(turn.decoded)]
    return records, [reject for turn in turns for reject in turn.decoded.rejects]


def frames_of(framer: LineFramer, parts: list[bytes], *, blanks: bool) -> int:
    """Count what the framer makes of the same reads."""
    frames = [frame for part in parts for frame in framer.feed(part)] + framer.close()
    whole = sum(blanks or not frame.isspace() for frame in frames)
    return whole + len(framer.take_cut()) + len(framer.take_broken())


def rows(decoded: object) -> list[Record]:
    """Return records, and have them made ready for COPY: what cannot be is for the quarantine, and none here is."""
    records = decoded.records if isinstance(decoded, Decoded) else getattr(decoded, "records", [])
    if not len(records):
        return []
    frame, poison = columns_of(records)
    assert not poison
    return list(map(Record._make, frame.iter_rows()))


def check(records: list[Record], rejects: list[Reject]) -> None:
    for record in records:
        for text in (record.message, record.service, record.host, record.source, record.attributes, record.trace_id):
            assert "\0" not in (text or "")
            (text or "").encode()
        json.loads(record.attributes or "{}", parse_constant=pytest.fail)
        assert 0 <= record.severity <= 7
    assert all(reject.raw and "\0" not in reject.reason for reject in rejects)


def numbers(records: list[Record]) -> list[int]:
    return [int(record.message.removeprefix("good ")) for record in records if record.service == "good"]


@pytest.mark.parametrize("neighbours", [2, MANY])
@settings(deadline=None, max_examples=60)
@given(st.lists(line, max_size=4), places)
def test_lines_of_noise_cost_a_json_neighbour_nothing(neighbours: int, noisy: list[bytes], at: list[int]) -> None:
    protocol = json_lines(LONGEST)
    half = neighbours // 2
    lines = [*map(good, range(half)), *noisy, *map(good, range(half, neighbours))]
    records, rejects = taken(protocol, pieces(b"\n".join(lines), at))
    check(records, rejects)
    assert numbers(records) == list(range(neighbours))
    assert len(records) + len(rejects) >= len(lines)  # a line of noise may be several, by where it is cut


@pytest.mark.parametrize("neighbours", [2, MANY])
@pytest.mark.parametrize("counted", [False, True])
@settings(deadline=None, max_examples=40)
@given(st.lists(line, max_size=4), places)
def test_noise_costs_a_syslog_neighbour_nothing(
    neighbours: int, counted: bool, noisy: list[bytes], at: list[int]
) -> None:
    protocol = syslog(LONGEST, UTC)
    half = neighbours // 2
    frames = [*map(good_syslog, range(half)), *noisy, *map(good_syslog, range(half, neighbours))]
    form = (lambda frame: b"%d %b" % (len(frame), frame)) if counted else (lambda frame: frame + b"\n")
    records, rejects = taken(protocol, pieces(b"".join(map(form, frames)), at))
    check(records, rejects)
    assert numbers(records) == list(range(neighbours))
    assert (len(records), rejects) == (len(frames), [])


@settings(deadline=None, max_examples=150)
@given(noise, places, st.integers(1, 300))
def test_a_stream_of_noise_is_records_and_rejects(stream: bytes, at: list[int], longest: int) -> None:
    """However it is cut into reads, and whatever it was meant to be."""
    parts = pieces(stream, at)
    # A line of blanks is nothing where lines are JSON, and a text where they are syslog.
    for protocol, framer, blanks in (
        (json_lines(longest), JsonFramer(longest), False),
        (syslog(longest, UTC), SyslogFramer(longest), True),
    ):
        records, rejects = taken(protocol, parts)
        check(records, rejects)
        count = frames_of(framer, parts, blanks=blanks)
        found = len(records) + len(rejects)
        assert found == count if blanks else found >= count  # a frame of JSON may hold several values
        assert bool(count) >= bool(stream.strip(BLANKS + b"\0"))


@settings(deadline=None, max_examples=150)
@given(noise, st.booleans())
def test_a_line_of_noise_in_a_body_costs_no_neighbour(noisy: bytes, many: bool) -> None:
    neighbours = MANY if many else 2
    noisy = b"~" + noisy.replace(b"\n", b" ")
    body = b"\n".join([*map(good, range(neighbours)), noisy, good(neighbours)])
    decoded = decode_body(body, ORIGIN)
    records = rows(decoded)
    check(records, decoded.rejects)
    assert numbers(records) == list(range(neighbours + 1))
    assert [reject.raw for reject in decoded.rejects] == [noisy]


@settings(deadline=None, max_examples=100)
@given(noise)
def test_a_body_of_noise_is_read_to_its_end(body: bytes) -> None:
    decoded = decode_body(body, ORIGIN)
    records = rows(decoded)
    check(records, decoded.rejects)
    text = body.strip(BLANKS + b"\xef\xbb\xbf[],\x1e")
    assert bool(records or decoded.rejects) >= bool(text)


@pytest.mark.parametrize("framer", [LineFramer(100), SyslogFramer(100)])
def test_a_number_of_900_digits_is_no_count(framer: LineFramer) -> None:
    assert framer.feed(b"9" * 900 + b" <13>text\n<13>next\n") == [b"<13>next"]
    (cut,) = framer.take_cut()
    assert cut.length == 909
