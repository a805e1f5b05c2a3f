import asyncio
import json
import struct
import tracemalloc
import zlib
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.json_lines import decode_lines
from logagg.protocols.lumberjack import LumberjackSession
from logagg.protocols.record import Origin, Record

if TYPE_CHECKING:
    from logagg.tests.turns import Heard, heard, records_of
else:
    from turns import Heard, heard, records_of

ORIGIN = Origin(datetime(2026, 11, 22, 12, tzinfo=UTC), "lumberjack", "192.0.2.99")
MAX = 1000
MAX_UNPACKED = 1 << 20

#: As Filebeat 8 sends it.
BEATS = {
    "@timestamp": "2026-11-20T10:00:00.123Z",
    "@metadata": {"beat": "filebeat", "type": "_doc", "version": "8.9.0"},
    "message": "card refused",
    "log": {"level": "error", "offset": 17, "file": {"path": "/var/log/shop.log"}},
    "host": {"name": "web1"},
    "service": {"name": "shop"},
    "trace": {"id": "4bf92f3577b34da6a3ce929d0e0e4736"},
    "agent": {"type": "filebeat", "version": "8.9.0"},
}


def hear(pieces: list[bytes]) -> Heard:
    session = LumberjackSession(MAX, MAX_UNPACKED)
    turns = [turn for piece in pieces for turn in session.feed(piece, ORIGIN)]
    turns += session.close(ORIGIN)
    return heard(turns)


def window(count: int, version: bytes = b"2") -> bytes:
    return struct.pack(">2sI", version + b"W", count)


def event(sequence: int, document: Any) -> bytes:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack(">2sII", b"2J", sequence, len(data)) + data


def old_event(sequence: int, **texts: bytes) -> bytes:
    pairs = b"".join(
        struct.pack(">I", len(text)) + text for pair in texts.items() for text in (pair[0].encode(), pair[1])
    )
    return struct.pack(">2sII", b"1D", sequence, len(texts)) + pairs


def packed(frames: bytes, version: bytes = b"2") -> bytes:
    data = zlib.compress(frames)
    return struct.pack(">2sI", version + b"C", len(data)) + data


def ack(sequence: int, version: bytes = b"2") -> bytes:
    return struct.pack(">2sI", version + b"A", sequence)


def events(first: int, last: int) -> bytes:
    return b"".join(event(number, {"message": f"text {number}"}) for number in range(first, last + 1))


def texts(first: int, last: int) -> list[str]:
    return [f"text {number}" for number in range(first, last + 1)]


def test_an_event_of_filebeat_becomes_a_record() -> None:
    got = hear([window(1) + event(1, BEATS)])
    (record,) = got.records
    assert record.timestamp == datetime(2026, 11, 20, 10, 0, 0, 123000, UTC)
    assert (record.message, record.severity, record.host, record.service) == ("card refused", 3, "web1", "shop")
    assert (record.trace_id, record.raw) == ("4bf92f3577b34da6a3ce929d0e0e4736", None)
    assert record.attributes is not None
    assert json.loads(record.attributes) == {
        "@metadata": BEATS["@metadata"],
        "log": {"offset": 17, "file": {"path": "/var/log/shop.log"}},
        "agent": {"type": "filebeat", "version": "8.9.0"},
    }


@pytest.mark.parametrize("pack", [bytes, packed])
def test_the_windows_of_a_read_are_one_turn_with_an_answer_for_each(pack: Any) -> None:
    session = LumberjackSession(MAX, MAX_UNPACKED)
    assert session.greeting() == b""
    data = window(100) + pack(events(1, 100)) + window(2) + pack(events(1, 2))
    (turn,) = session.feed(data, ORIGIN)
    assert (turn.answer, turn.size, turn.last, turn.key) == (ack(100) + ack(2), len(data), False, None)
    assert len(turn.decoded.records) == 102
    assert session.close(ORIGIN) == []


def test_a_window_in_several_reads_is_acknowledged_when_it_is_whole() -> None:
    session = LumberjackSession(MAX, MAX_UNPACKED)
    assert session.feed(window(3), ORIGIN) == []
    (first,) = session.feed(events(1, 2), ORIGIN)
    assert (len(first.decoded.records), first.answer, first.size) == (2, b"", len(window(3) + events(1, 2)))
    (second,) = session.feed(events(3, 3), ORIGIN)
    assert (len(second.decoded.records), second.answer) == (1, ack(3))


def test_a_window_of_several_compressed_frames_and_others() -> None:
    got = hear([window(5) + packed(events(1, 2)) + events(3, 3) + packed(events(4, 5))])
    assert (got.messages, got.answer) == (texts(1, 5), ack(5))


def test_a_window_may_stand_in_a_compressed_frame() -> None:
    got = hear([packed(window(2) + events(1, 2))])
    assert (got.messages, got.answer) == (texts(1, 2), ack(2))


def test_sequences_that_go_on_are_acknowledged_as_they_are() -> None:
    got = hear([window(2) + events(7, 8) + window(2) + events(9, 10)])
    assert got.answer == ack(8) + ack(10)


def test_a_window_that_is_not_whole_is_acknowledged_when_the_next_begins() -> None:
    got = hear([window(5) + events(1, 3) + window(1) + events(1, 1)])
    assert (got.messages, got.answer) == ([*texts(1, 3), "text 1"], ack(3) + ack(1))


def test_events_in_no_window_are_acknowledged_one_by_one() -> None:
    assert hear([window(1) + events(1, 2)]).answer == ack(1) + ack(2)


def test_a_window_of_nothing_is_acknowledged() -> None:
    assert hear([window(0)])[1:] == ([], [], ack(0))


def test_events_of_version_1() -> None:
    frames = old_event(1, line=b"first", host=b"web1", file=b"/var/log/a", offset=b"7") + old_event(
        2, line=b'a "\\\n\xff'
    )
    for data in (window(2, b"1") + frames, window(2, b"1") + packed(frames, b"1")):
        for pieces in ([data], [data[place : place + 1] for place in range(len(data))]):
            got = hear(pieces)
            assert (got.messages, got.answer, got.rejects) == (["first", 'a "\\\n\ufffd'], ack(2, b"1"), [])
            assert (got.records[0].host, got.records[0].raw) == ("web1", None)
            assert json.loads(got.records[0].attributes or "") == {"file": "/var/log/a", "offset": "7"}
            assert b"\xff" in (got.records[1].raw or b"")


def test_an_event_that_is_no_json_is_rejected_and_acknowledged() -> None:
    got = hear(
        [window(4) + event(1, {"message": "a"}) + event(2, b"{oops") + event(3, b"7") + event(4, {"message": "b"})]
    )
    assert (got.messages, got.answer) == (["a", "b"], ack(4))
    assert [reject.raw for reject in got.rejects] == [b"{oops", b"7"]


def test_an_empty_event_is_acknowledged() -> None:
    for data in (window(2) + event(1, b"") + event(2, b""), window(2) + packed(event(1, b"") + event(2, b""))):
        assert hear([data])[1:] == ([], [], ack(2))


@pytest.mark.parametrize("pack", [bytes, packed])
@pytest.mark.parametrize("step", [1, 13, 10_000])
def test_of_an_event_that_is_too_long_the_start_is_a_reject(pack: Any, step: int) -> None:
    long = event(2, {"message": "x" * 5000})
    data = window(3) + pack(events(1, 1) + long + events(3, 3))
    got = hear([data[start : start + step] for start in range(0, len(data), step)])
    assert (got.messages, got.answer) == (["text 1", "text 3"], ack(3))
    assert got.reasons == [f"event of {len(long) - 10} bytes, at most 1000"]
    assert got.rejects[0].raw == long[10 : 10 + MAX]


def test_an_event_of_just_the_limit_is_whole() -> None:
    document = {"message": "x" * (MAX - len(json.dumps({"message": ""})))}
    got = hear([window(1) + event(1, document)])
    assert (got.messages, got.rejects) == ([document["message"]], [])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "bytes 0x4745 as a Lumberjack frame, which has none such"),
        (bytes.fromhex("160301020001000001fc0303"), "bytes 0x1603 as a Lumberjack frame, which has none such"),
        (b"9" * 900, "bytes 0x3939 as a Lumberjack frame, which has none such"),
        (ack(7), "bytes 0x3241 as a Lumberjack frame, which has none such"),
        (b"3W\0\0\0\1", "bytes 0x3357 as a Lumberjack frame, which has none such"),
        (packed(packed(b"")), "bytes 0x3243 in a compressed frame, which has none such"),
        (packed(b"garbage"), "bytes 0x6761 in a compressed frame, which has none such"),
        (struct.pack(">2sII", b"1D", 1, 1001), "Lumberjack event of 1001 pairs, at most 1000"),
        (struct.pack(">2sIII", b"1D", 1, 1, 1 << 31), "Lumberjack event of 2147483662 bytes or more, at most 1000"),
        (b"2C\0\0\0\x07garbage", "compressed frame of 7 bytes is not zlib: "),
        (packed(events(1, 1)[:-1]), "compressed frame of "),
    ],
)
def test_what_is_no_lumberjack_ends_the_session_and_only_it(data: bytes, reason: str) -> None:
    good = window(2) + events(1, 2) + window(2) + events(1, 1)
    for pieces in ([good + data], [good, *(data[place : place + 1] for place in range(len(data)))]):
        got = hear(pieces)
        assert (got.messages[:3], got.answer) == (["text 1", "text 2", "text 1"], ack(2))
        assert len(got.rejects) == 1
        assert got.reasons[0].startswith(reason)
        assert got.turns[-1].last
        assert len(got.rejects[0].raw) <= MAX


def test_nothing_is_taken_behind_the_end() -> None:
    session = LumberjackSession(MAX, MAX_UNPACKED)
    assert session.feed(b"GET /", ORIGIN)[0].last
    assert session.feed(window(1) + events(1, 1), ORIGIN) == session.close(ORIGIN) == []


@pytest.mark.parametrize(
    "plain",
    [
        window(1) + event(1, bytes(50 << 20)),
        events(1, 1) + struct.pack(">2sII", b"2J", 2, 1 << 31) + bytes(50 << 20),
        event(1, {}) * 20_000,
        window(0) * 20_000,
    ],
    ids=["an event of zeros", "a frame without end", "events", "windows"],
)
def test_a_bomb_is_left_at_the_limit(plain: bytes) -> None:
    data = window(1 << 31) + packed(plain)
    tracemalloc.start()
    try:
        got = hear([data])
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert got.turns[-1].last
    assert got.reasons[-1] == f"compressed frame of {len(data) - 12} bytes: one read holds more than 1048576"


def test_the_limit_holds_for_all_compressed_frames_of_a_read() -> None:
    frame = window(400) + packed(events(1, 400))
    got = hear([frame * 10])
    assert got.turns[-1].last
    assert got.answer == ack(400) * (got.answer.count(ack(400)))
    assert 4 < got.answer.count(ack(400)) < 10
    assert hear([frame] * 10).answer == ack(400) * 10


def test_a_compressed_frame_that_goes_on_behind_its_end_ends_the_session() -> None:
    data = zlib.compress(events(1, 1)) + b"more"
    head = window(2) + struct.pack(">2sI", b"2C", 1 << 31)
    for pieces in ([head + data], [head, *(data[place : place + 1] for place in range(len(data)))]):
        got = hear(pieces)
        assert (got.messages, got.answer) == (["text 1"], b"")
        assert got.reasons == [f"compressed frame of {1 << 31} bytes does not end where its frames end"]


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"2", "Lumberjack frame cut short, 1 bytes or more to come"),
        (b"2W\0", "Lumberjack frame cut short, 3 bytes or more to come"),
        (events(1, 1)[:-4], "Lumberjack frame cut short, 4 bytes or more to come"),
        (event(1, b"x" * 5000)[:-4], "Lumberjack frame cut short, 4 bytes or more to come"),
        (packed(events(1, 1))[:-4], f"compressed frame of {len(packed(events(1, 1))) - 6} bytes, cut short after "),
    ],
)
def test_a_frame_that_the_end_cuts_short_is_a_reject_without_answer(start: bytes, reason: str) -> None:
    got = hear([window(2) + start])
    assert got.answer == b""
    assert len(got.reasons) == 1
    assert got.reasons[0].startswith(reason)


DOCUMENTS = st.dictionaries(st.sampled_from(["message", "@timestamp", "log", "a"]), st.text(max_size=20), max_size=3)
EVENTS = st.one_of(DOCUMENTS.map(lambda document: json.dumps(document).encode()), st.binary(max_size=30))


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes], bytes]:
    """A stream, its events and its answer; then perhaps what is none."""
    data, sent, answer = b"", [], b""
    for batch in draw(st.lists(st.lists(EVENTS, min_size=1, max_size=6), max_size=4)):
        frames = b"".join(event(number, document) for number, document in enumerate(batch, 1))
        data += window(len(batch)) + (packed(frames) if draw(st.booleans()) else frames)
        sent += batch
        answer += ack(len(batch))
    return data + draw(st.sampled_from([b"", window(3) + events(1, 2), b"2X", b"2C\0\0\0\4abcd"])), sent, answer


@settings(max_examples=200, deadline=None)
@given(streams(), st.lists(st.integers(0, 2000)))
def test_wherever_a_stream_is_cut_it_gives_the_same(
    stream: tuple[bytes, list[bytes], bytes], places: list[int]
) -> None:
    data, sent, answer = stream
    whole = hear([data])
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    pieces = hear([data[start:end] for start, end in pairwise(bounds)])
    assert (pieces.records, pieces.answer) == (whole.records, whole.answer)
    assert [reason[:30] for reason in pieces.reasons] == [reason[:30] for reason in whole.reasons]
    expected = decode_lines([each for each in sent if each], ORIGIN)
    assert whole.records[: len(expected.records)] == expected.records
    assert whole.rejects[: len(expected.rejects)] == expected.rejects
    assert whole.answer == answer


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.binary(max_size=50) | st.sampled_from([b"2J", b"2W\0\0\0", b"2C\0\0\0\1", b"1D\0\0\0\1\0\0\0\1", b"\0"])
    )
)
def test_no_bytes_raise(pieces: list[bytes]) -> None:
    got = hear(pieces)
    assert not any(turn.last for turn in got.turns[:-1])


def test_a_session_holds_at_most_one_frame() -> None:
    sessions = [LumberjackSession(1000, MAX_UNPACKED) for _ in range(10)]
    read = window(10_000) + events(1, 100) + struct.pack(">2sII", b"2J", 1, 1 << 31)
    tracemalloc.start()
    try:
        for session in sessions:
            session.feed(bytes(bytearray(read)), ORIGIN)
            for _ in range(20):
                session.feed(bytes(5000), ORIGIN)
        assert tracemalloc.get_traced_memory()[0] < 10 * 15_000
    finally:
        tracemalloc.stop()


class Receiver(asyncio.Protocol):
    """The least listener that a session needs."""

    def __init__(self, records: list[Record]) -> None:
        self._session = LumberjackSession(1 << 20, 64 << 20)
        self._records = records

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for turn in self._session.feed(data, ORIGIN):
            self._records += records_of([turn])
            self._transport.write(turn.answer)


async def test_pylogbeat_sends_windows() -> None:
    """A client of its own making, whose sequences go on from one window to the next."""
    pylogbeat = pytest.importorskip("pylogbeat", reason="pylogbeat is not installed (pip install pylogbeat)")
    records: list[Record] = []
    server = await asyncio.get_running_loop().create_server(lambda: Receiver(records), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def send() -> None:
        with pylogbeat.PyLogBeatClient("127.0.0.1", port, timeout=60) as client:
            for start in (0, 100, 200):
                client.send([BEATS | {"message": f"text {number}"} for number in range(start, start + 100)])
                assert len(records) == start + 100

    async with asyncio.timeout(60):
        await asyncio.to_thread(send)
    server.close()
    await server.wait_closed()
    assert [record.message for record in records] == texts(0, 299)
    assert {record.service for record in records} == {"shop"}
