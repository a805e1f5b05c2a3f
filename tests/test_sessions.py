"""Sessions within sessions: connections that are compressed as a whole, and lines that are joined on their way."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import shutil
import socket
import subprocess
import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.collector.buffer import RingBuffer
from logagg.collector.datagrams import DatagramListener, DatagramProtocol
from logagg.collector.heartbeats import HeartbeatListener
from logagg.collector.intake import Intake
from logagg.collector.metrics import Metrics
from logagg.collector.sockets import Place
from logagg.collector.streams import StreamListener, StreamProtocol
from logagg.collector.units import Address
from logagg.collector.wiring import syslog
from logagg.protocols.columns import to_records
from logagg.protocols.inflated import InflatedSession, inflating
from logagg.protocols.multiline import JoinedDatagrams, JoinedSession, Joiner
from logagg.protocols.record import Decoded, Origin, Record, Reject
from logagg.protocols.syslog_columns import decode_syslog

if TYPE_CHECKING:
    from pathlib import Path

    from logagg.protocols.columns import Columnar
    from logagg.protocols.session import Session, Turn

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORIGIN = Origin(NOW, "syslog-tcp", "192.0.2.9")
LIMIT = 1 << 20
PATIENCE = 30
#: Levels 1, 2, 6 and 9 begin differently.
LEVELS = (1, 2, 6, 9)

decode = partial(decode_syslog, zone=UTC)


def inflated(limit: int = LIMIT) -> InflatedSession:
    return InflatedSession(syslog(65_536, UTC), limit)


def line(number: int) -> bytes:
    return b"<13>1 2026-11-22T11:00:00Z host app - - - line %d\n" % number


def records_of(decoded: Decoded | Columnar) -> list[Record]:
    return decoded.records if isinstance(decoded, Decoded) else to_records(decoded.records)


def taken(turns: list[Turn]) -> tuple[list[str], list[Reject]]:
    records = [record for turn in turns for record in records_of(turn.decoded)]
    return [record.message for record in records], [reject for turn in turns for reject in turn.decoded.rejects]


def run(session: Session, *parts: bytes) -> tuple[list[str], list[Reject]]:
    return taken([turn for part in parts if part for turn in session.feed(part, ORIGIN)] + session.close(ORIGIN))


def cut_at(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(bounds)]


def compressed(plain: bytes, level: int, kind: str) -> bytes:
    return gzip.compress(plain, level) if kind == "gzip" else zlib.compress(plain, level)


places = st.lists(st.integers(0, 5000), max_size=6)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from(LEVELS), st.sampled_from(["gzip", "zlib"])), max_size=3),
    st.booleans(),
    places,
)
def test_streams_one_after_the_other_and_plain_lines_behind_them(
    streams: list[tuple[int, int, str]], plain: bool, at: list[int]
) -> None:
    lines = list(map(line, range(sum(count for count, _, _ in streams))))
    wire, rest = b"", iter(lines)
    for count, level, kind in streams:
        wire += compressed(b"".join(itertools.islice(rest, count)), level, kind)
    wire += b"<13>1 - host app - - - behind\n" * plain
    session = inflated()
    messages, rejects = run(session, *cut_at(wire, at))
    assert messages == [f"line {number}" for number in range(len(lines))] + ["behind"] * plain
    assert rejects == []


@pytest.mark.parametrize("level", LEVELS)
def test_what_was_flushed_is_there_at_once_and_a_stream_that_just_stops_is_good(level: int) -> None:
    machine, session = zlib.compressobj(level), inflated()
    for number in range(3):
        data = machine.compress(line(number)) + machine.flush(zlib.Z_SYNC_FLUSH)
        assert taken(session.feed(data, ORIGIN)) == ([f"line {number}"], [])
    data = machine.compress(b"<13>1 - host app - - - no end") + machine.flush(zlib.Z_SYNC_FLUSH)
    assert run(session, data) == (["no end"], [])


@settings(deadline=None, max_examples=20)
@given(places)
def test_a_damaged_stream_keeps_what_was_good_however_it_is_cut(at: list[int]) -> None:
    machine = zlib.compressobj()
    good = machine.compress(b"".join(map(line, range(100)))) + machine.flush(zlib.Z_SYNC_FLUSH)
    parts = cut_at(good + b"\xff" * 2000 + line(7), at)
    session = inflated()
    turns = [turn for part in parts if part for turn in session.feed(part, ORIGIN)]
    messages, [reject] = taken(turns + session.close(ORIGIN))
    assert messages == [f"line {number}" for number in range(100)]
    assert "zlib stream is damaged" in reject.reason
    assert reject.raw[:1] == b"\xff"
    assert [turn.last for turn in turns if turn.decoded.rejects] == [True]
    assert session.feed(b"more", ORIGIN) == []


@pytest.mark.parametrize("kind", ["gzip", "zlib"])
def test_a_bomb_ends_the_connection_with_the_numbers_and_takes_little_memory(kind: str) -> None:
    bomb = compressed(line(1) + b"\0" * (32 << 20), 9, kind)
    session = inflated()
    tracemalloc.start()
    messages, rejects = run(session, bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "line 1" in messages
    assert [f"{kind} stream: one read holds more than {LIMIT} bytes"] == [reject.reason for reject in rejects]
    assert peak < 20 << 20


def test_a_stream_may_give_more_than_the_limit_in_several_reads() -> None:
    machine, session = zlib.compressobj(), inflated(10_000)
    for number in range(50):
        data = machine.compress(line(number) * 100) + machine.flush(zlib.Z_SYNC_FLUSH)
        assert taken(session.feed(data, ORIGIN)) == ([f"line {number}"] * 100, [])


def test_zstd_is_refused_with_its_bytes() -> None:
    session = inflated()
    messages, [reject] = run(session, b"\x28", b"\xb5\x2f\xfd\x04\x00")
    assert (messages, reject.raw) == ([], b"\x28\xb5\x2f\xfd\x04\x00")
    assert "zstd" in reject.reason


@pytest.mark.parametrize("plain", [b"x", b"(", b"x marks", b"\x1f", b"(\xb5", b"<13>1 - h a - - - text"])
@pytest.mark.parametrize("size", [1, 100])
def test_plain_text_stays_as_it_is(plain: bytes, size: int) -> None:
    parts = [plain[place : place + size] for place in range(0, len(plain), size)]
    assert run(inflated(), *parts) == run(syslog(65_536, UTC), plain)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([b"x\x9c", b"x^", b"\x1f\x8b", b""]), st.binary(max_size=100), places)
def test_any_bytes_are_records_or_rejects(start: bytes, noise: bytes, at: list[int]) -> None:
    stream = start + noise
    messages, rejects = run(inflated(), *cut_at(stream, at))
    assert bool(messages or rejects) >= (bool(stream.strip(b"\r\n\0")) and not start)


def test_messages_that_are_compressed_alone() -> None:
    frames = [line(number).rstrip() for number in range(100)]
    packed = [b"z" + zlib.compress(frame, 6) if number % 2 else frame for number, frame in enumerate(frames)]
    decoded = inflating(decode, 1000, 10_000)(packed, ORIGIN)
    assert [record.message for record in records_of(decoded)] == [f"line {number}" for number in range(100)]
    assert [record.raw for record in records_of(decoded)] == [None] * 100


def test_compressed_messages_are_bounded_alone_and_together() -> None:
    long, short = b"z" + zlib.compress(b"x" * 5000), b"z" + zlib.compress(b"<13>" + b"y" * 900)
    decoded = inflating(decode, 1000, 2000)([long, short, short, short, b"<13>plain", b"zx and no zlib"], ORIGIN)
    assert [record.message[:5] for record in records_of(decoded)] == ["yyyyy", "yyyyy", "plain", "zx an"]
    assert [(reject.raw, reject.reason) for reject in decoded.rejects] == [
        (long, f"zlib message of {len(long)} bytes holds more than 1000"),
        (short, f"zlib message of {len(short)} bytes holds more than {2000 - 2 * 904}"),
    ]


# --- Joined ----------------------------------------------------------------------------------------------------------

TRACE = [b"order 17 failed", b"Traceback (most recent call last):", b'\tFile "shop.py", line 4', b"KeyError: 'stock'"]


def trace(host: bytes = b"host") -> list[bytes]:
    return [b"<11>1 2026-11-22T11:00:00Z %b app 7 - - %b" % (host, text) for text in TRACE]


def joined(window: float = 1) -> JoinedSession:
    return JoinedSession(syslog(65_536, UTC), Joiner(timedelta(seconds=window)))


@settings(deadline=None, max_examples=60)
@given(places)
def test_lines_are_joined_however_the_stream_is_cut(at: list[int]) -> None:
    stream = b"\n".join([*trace(), *trace(b"other"), line(1).rstrip(), *trace()]) + b"\n"
    messages, rejects = run(joined(), *cut_at(stream, at))
    whole = b"\n".join(TRACE).decode()
    assert sorted(messages) == sorted([whole, whole, whole, "line 1"])
    assert rejects == []


def test_a_joined_record_is_there_when_its_window_is_over() -> None:
    session = joined(2)
    data = b"\n".join(trace()) + b"\n"
    [turn] = session.feed(data, ORIGIN)
    assert records_of(turn.decoded) == []
    assert session.expire(NOW + timedelta(seconds=1.9)) == []
    [turn] = session.expire(NOW + timedelta(seconds=2))
    assert taken([turn]) == (["\n".join(text.decode() for text in TRACE)], [])
    assert turn.size == len(data)
    assert session.expire(NOW + timedelta(seconds=9)) == session.close(ORIGIN)[1:] == []


def test_rejects_pass_at_once() -> None:
    session = JoinedSession(inflated(), Joiner(timedelta(seconds=1)))
    messages, [reject] = taken(session.feed(zlib.compress(trace()[0])[:-4] + b"zzzz", ORIGIN))
    assert (messages, reject.transport) == ([], "syslog-tcp")
    assert taken(session.close(ORIGIN))[0] == ["order 17 failed"]


def test_what_waits_is_bounded() -> None:
    joiner = Joiner(timedelta(seconds=9), max_held=10_000)
    session = JoinedSession(syslog(65_536, UTC), joiner)
    for number in range(100):
        session.feed(b"<13>1 - host%d app - - - %b\n" % (number, b"x" * 900), ORIGIN)
        assert len(joiner) <= 12
    assert len(taken(session.close(ORIGIN))[0]) == len(range(100)[-11:])


async def test_datagrams_are_joined() -> None:
    buffer, metrics = RingBuffer(100, 100_000), Metrics()
    intake = Intake(buffer, metrics, max_records=100, ack_timeout=1)
    joining = JoinedDatagrams(decode, Joiner(timedelta(seconds=600)))
    protocol = DatagramProtocol("syslog-udp", joining, joining.expire)
    listener = DatagramListener(protocol, intake, receive_buffer=65_536, environment=None)
    address = await listener.start(Place("syslog_udp_listen", Address("127.0.0.1", 0)))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(tuple(address))
        for frame in [*trace(), line(1), *trace()]:
            sock.send(frame)
    await listener.stop()
    messages = [record.message for chunk in await buffer.take(100, 0) for record in records_of(chunk.decoded)]
    assert sorted(messages) == sorted(["\n".join(text.decode() for text in TRACE)] * 2 + ["line 1"])


# --- On the wire -----------------------------------------------------------------------------------------------------

RSYSLOG = """
global(workDirectory="{folder}")
module(load="imfile")
input(type="imfile" File="{folder}/lines" Tag="lines:")
action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" compression.mode="{mode}" zipLevel="{level}")
"""


@pytest.mark.parametrize(("mode", "level"), [("stream:always", 1), ("stream:always", 6), ("single", 9)])
async def test_rsyslogd_compresses(tmp_path: Path, mode: str, level: int) -> None:
    program = shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin")
    if not program:
        pytest.skip("rsyslogd is not installed (Debian: apt install rsyslog)")
    buffer, metrics = RingBuffer(10_000, 1 << 30), Metrics()
    intake = Intake(buffer, metrics, max_records=10_000, ack_timeout=1)

    def session() -> Session:
        inner = syslog(65_536, UTC)
        inner._decode = inflating(inner._decode, 65_536, LIMIT)  # type: ignore[attr-defined]  # as wiring would do it
        return InflatedSession(inner, LIMIT)

    listener = StreamListener(
        StreamProtocol("syslog-tcp", session), intake, metrics, max_connections=9, environment=None
    )
    address = await listener.start(Place("syslog_tcp_listen", Address("127.0.0.1", 0)))
    sent = [f"number {number} {'text ' * 30}".strip() for number in range(2000)]
    (tmp_path / "lines").write_text("\n".join(sent) + "\n")
    (tmp_path / "conf").write_text(RSYSLOG.format(folder=tmp_path, port=address.port, mode=mode, level=level))
    process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
        [program, "-n", "-f", str(tmp_path / "conf"), "-i", str(tmp_path / "pid")]
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while metrics.totals().get("syslog-tcp", {}).get("received", 0) < len(sent):
                await asyncio.sleep(0.02)
    finally:
        process.terminate()
        process.wait(PATIENCE)
    await listener.stop(1)
    records = [record for chunk in await buffer.take(10_000, 0) for record in records_of(chunk.decoded)]
    assert [record.message.strip() for record in records] == sent
    assert {record.service for record in records} == {"lines"}


async def test_heartbeats_of_fluentd_are_answered() -> None:
    listener = HeartbeatListener()
    address = await listener.start(Place("forward_listen", Address("127.0.0.1", 0)))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(tuple(address))
        for data in (b"\0", b"", b"x" * 60_000):
            sock.send(data)
            assert await asyncio.to_thread(sock.recv, 100) == b"\0"
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.2", address.port))  # another server of heartbeats, it seems
        sock.setblocking(False)
        sock.sendto(b"\0", tuple(address))
        sock.sendto(b"\0", tuple(address))
        await asyncio.sleep(0.05)
        with pytest.raises(BlockingIOError):
            sock.recv(100)
    await listener.stop()
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(tuple(address))
        with pytest.raises(OSError, match=f"forward_listen: cannot listen on 127.0.0.1:{address.port}"):
            await HeartbeatListener().start(Place("forward_listen", address))
