"""What comes in over TCP and UDP: kept, or cut and marked, or in quarantine; never at a neighbour's cost."""

from __future__ import annotations

import asyncio
import resource
import socket
from typing import TYPE_CHECKING

import asyncpg
import polars as pl
import pytest

from logagg.collector.buffer import RingBuffer
from logagg.collector.flusher import merged
from logagg.collector.intake import Intake
from logagg.collector.metrics import Metrics
from logagg.collector.sockets import Place
from logagg.collector.streams import StreamListener, StreamProtocol
from logagg.collector.units import Address
from logagg.collector.wiring import json_lines

if TYPE_CHECKING:
    from logagg.tests.daemons import Lines, RunningDaemon, Starter

GOOD = b'{"message": "good neighbour"}\n'


async def reasons(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return [row["reason"] for row in await connection.fetch("select reason from quarantine order by id")]
    finally:
        await connection.close()


async def test_json_lines_come_back(daemon: RunningDaemon) -> None:
    await daemon.tcp("tcp_listen", b'{"message": "one", "service": "shop", "n": 1}\n{"message": "two"}')
    found = await daemon.logs(order="oldest")
    assert [record["message"] for record in found] == ["one", "two"]
    assert found[0]["service"] == "shop"
    assert found[0]["attributes"] == {"n": 1}
    assert found[0]["source"] == "127.0.0.1"


async def test_both_framings_of_syslog_alternate_on_one_connection(daemon: RunningDaemon) -> None:
    counted = b"<34>1 2026-10-11T22:14:15Z host app 1 - - counted\nwith a line end"
    await daemon.tcp(
        "syslog_tcp_listen",
        b"<34>Oct 11 22:14:15 host app: by line\n%d %b<34>Oct 11 22:14:16 host app: again\n" % (len(counted), counted),
    )
    found = await daemon.logs()
    assert {record["message"] for record in found} == {"by line", "counted\nwith a line end", "again"}
    assert {record["level"] for record in found} == {"CRITICAL"}


async def test_datagrams_come_back(daemon: RunningDaemon) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(tuple(daemon.listening["syslog_udp_listen"]))
        for number in range(500):
            sock.send(b"<13>Oct 11 22:14:15 host app: datagram %d" % number)
        sock.send(b"")
    while await daemon.metric("logagg_records_received_total", transport="syslog-udp") < 500:
        await asyncio.sleep(0.01)
    found = await daemon.logs()
    assert sorted(record["message"] for record in found) == sorted(f"datagram {number}" for number in range(500))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"message": "half', "JSON"),
        (b"42", "number, expected an object"),
        (b'"text"', "string, expected an object"),
        (b"[1, 2]", "array, expected an object"),
        (b"not JSON at all", "JSON"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "nested too deeply"),
    ],
    ids=["half", "number", "string", "array", "text", "deep"],
)
async def test_what_is_no_record_goes_to_quarantine(
    daemon: RunningDaemon, database_url: str, line: bytes, reason: str
) -> None:
    await daemon.tcp("tcp_listen", GOOD + line + b"\n" + GOOD)
    assert [record["message"] for record in await daemon.logs()] == ["good neighbour"] * 2
    [said] = await reasons(database_url)
    assert reason in said
    assert await daemon.metric("logagg_records_quarantined_total", transport="tcp") == 1


async def test_a_line_that_is_too_long_is_cut_and_kept_in_quarantine(daemon: RunningDaemon, database_url: str) -> None:
    line = b'{"message": "' + b"x" * 10_000_000 + b'"}\n'
    await daemon.tcp("tcp_listen", GOOD + line + GOOD)
    assert [record["message"] for record in await daemon.logs()] == ["good neighbour"] * 2
    assert await reasons(database_url) == [f"frame of {len(line) - 1} bytes, at most 1048576"]
    assert await daemon.metric("logagg_frames_cut_total", transport="tcp") == 1


async def test_a_long_syslog_line_is_cut_and_marked(start_daemon: Starter) -> None:
    daemon = await start_daemon(max_frame="1KiB")
    head = b"<13>Oct 11 22:14:15 host app: "
    await daemon.tcp("syslog_tcp_listen", head + b"x" * 5000 + b"\n<13>Oct 11 22:14:15 host app: next\n")
    found = {record["message"]: record for record in await daemon.logs()}
    assert set(found) == {"x" * (1024 - len(head)), "next"}
    cut = found["x" * (1024 - len(head))]
    assert cut["attributes"]["logagg_note"] == f"cut: frame of {len(head) + 5000} bytes, at most 1024"


async def test_a_counted_frame_cut_short_goes_to_quarantine(daemon: RunningDaemon, database_url: str) -> None:
    await daemon.tcp("syslog_tcp_listen", b"500 <13>1 - host app - - - only the beginning")
    assert await daemon.logs() == []
    [said] = await reasons(database_url)
    assert "cut short" in said


async def test_bytes_that_postgresql_refuses_are_replaced_and_kept(daemon: RunningDaemon, database_url: str) -> None:
    lines = [
        rb'{"message": "a NUL \u0000 inside"}',
        b'{"message": "bad \xff UTF-8"}',
        rb'{"message": "a lone \ud800 surrogate"}',
        rb'{"message": "in a key", "\u0000": "\udfff"}',
    ]
    await daemon.tcp("tcp_listen", GOOD + b"\n".join(lines) + b"\n" + GOOD)
    found = {record["message"] for record in await daemon.logs()}
    assert found == {"good neighbour", "a NUL � inside", "bad � UTF-8", "a lone � surrogate", "in a key"}
    connection = await asyncpg.connect(database_url)
    kept = {row["raw"] for row in await connection.fetch("select raw from logs where raw is not null")}
    await connection.close()
    assert kept == set(lines)


async def test_odd_fields_are_kept_and_marked(daemon: RunningDaemon) -> None:
    await daemon.tcp(
        "tcp_listen",
        b'{"service": "no message"}\n'
        b'{"message": "far", "timestamp": "+300000-01-01T00:00:00Z"}\n'
        b'{"message": "purple", "level": "purple"}\n',
    )
    found = {record["message"]: record for record in await daemon.logs()}
    assert found[""]["attributes"]["logagg_note"] == "no message"
    assert found["far"]["attributes"]["timestamp"] == "+300000-01-01T00:00:00Z"
    assert found["far"]["attributes"]["logagg_note"]
    assert found["far"]["timestamp"] == found["far"]["received_at"]
    assert found["purple"]["level"] == "INFO"
    assert found["purple"]["attributes"]["level"] == "purple"


async def test_a_client_that_sends_a_byte_at_a_time_gets_its_record(daemon: RunningDaemon) -> None:
    _, writer = await asyncio.open_connection(*daemon.listening["tcp_listen"])
    for byte in GOOD:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.001)
    await daemon.tcp("tcp_listen", b'{"message": "meanwhile"}\n')
    while await daemon.metric("logagg_records_received_total", transport="tcp") < 2:
        await asyncio.sleep(0.01)
    assert {record["message"] for record in await daemon.logs()} == {"good neighbour", "meanwhile"}
    writer.close()
    await writer.wait_closed()


async def test_2000_silent_connections_keep_nobody_out(daemon: RunningDaemon) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < 5000:
        pytest.skip(f"this user may open {most} files; both ends of 2,000 connections take more")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # as the daemon does when it starts
    silent = [await asyncio.open_connection(*daemon.listening["tcp_listen"]) for _ in range(2000)]
    await daemon.tcp("tcp_listen", GOOD)
    assert len(await daemon.logs()) == 1
    assert await daemon.metric("logagg_connections", transport="tcp") == 2000
    for _, writer in silent:
        writer.close()


async def test_connections_beyond_the_limit_are_closed_counted_and_said(start_daemon: Starter, lines: Lines) -> None:
    daemon = await start_daemon(max_connections=1)
    _, writer = await asyncio.open_connection(*daemon.listening["tcp_listen"])
    while not await daemon.metric("logagg_connections", transport="tcp"):
        await asyncio.sleep(0.01)
    for count in (1, 2):
        await daemon.tcp("tcp_listen", b"")
        assert await daemon.metric("logagg_connections_refused_total", transport="tcp") == count
    [told] = [line for line in lines if "too many" in line["event"]]
    assert (told["listener"], told["peer"], told["times"]) == ("tcp_listen", "127.0.0.1", 1)
    assert told["reason"] == "tcp_listen has 1 connections open, and max_connections is 1"
    writer.write(GOOD)
    writer.close()
    await writer.wait_closed()
    while not await daemon.metric("logagg_records_received_total", transport="tcp"):
        await asyncio.sleep(0.01)
    assert len(await daemon.logs()) == 1


async def test_a_connection_that_breaks_keeps_what_it_had_sent(daemon: RunningDaemon) -> None:
    _, writer = await asyncio.open_connection(*daemon.listening["tcp_listen"])
    writer.write(b'{"message": "last words"}')
    await writer.drain()
    while not await daemon.metric("logagg_connections", transport="tcp"):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    writer.transport.abort()
    while not await daemon.metric("logagg_records_received_total", transport="tcp"):
        await asyncio.sleep(0.01)
    assert [record["message"] for record in await daemon.logs()] == ["last words"]


async def test_a_syslog_time_out_of_range_is_kept_and_marked(daemon: RunningDaemon) -> None:
    await daemon.tcp("syslog_tcp_listen", b"<34>1 300000-01-01T00:00:00Z host app - - - far away\n")
    [found] = await daemon.logs()
    assert (found["host"], found["service"], found["message"]) == ("host", "app", "far away")
    assert found["timestamp"] == found["received_at"]
    assert found["attributes"]["timestamp"] == "300000-01-01T00:00:00Z"
    assert "out of range" in found["attributes"]["logagg_note"]


@pytest.mark.parametrize("room", [10, 1], ids=["room", "no room"])
async def test_what_has_come_is_in_the_buffer_when_a_listener_has_stopped(room: int) -> None:
    buffer, metrics = RingBuffer(room, 1000), Metrics()
    intake = Intake(buffer, metrics, max_records=100, ack_timeout=1)
    listener = StreamListener(
        StreamProtocol("tcp", lambda: json_lines(1000)), intake, metrics, max_connections=9, environment=None
    )
    address = await listener.start(Place("tcp_listen", Address("127.0.0.1", 0)))
    _, writer = await asyncio.open_connection(*address)
    writer.write(GOOD + GOOD + GOOD + b'{"message": "no end"}')
    while metrics.totals().get("tcp", {}).get("received", 0) < 3:
        await asyncio.sleep(0.01)
    await listener.stop(0.05)
    assert buffer.records == 4
    records = merged([chunk.decoded.records for chunk in await buffer.take(100, 0)])
    assert not isinstance(records, pl.DataFrame)
    messages = [record.message for record in records]
    assert messages == ["good neighbour"] * 3 + ["no end"]
    writer.close()
