"""Lines of a stack trace that become one record, where that is wanted; heartbeats over UDP on the port of Forward."""

from __future__ import annotations

import asyncio
import json
import socket
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from logagg.collector.settings import Settings

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon, Starter
    from logagg.tests.senders import section
else:
    from senders import section

TRACE = ["it failed", "\tat a.B.c(B.java:1)", "Caused by: nothing", "\tat d.E.f(E.java:2)"]
LINES = [f"<11>1 2026-11-22T11:00:00Z host app 7 - - {line}".encode() for line in TRACE]


@pytest.mark.parametrize("setting", ["syslog_tcp_listen", "syslog_udp_listen", "tcp_listen"])
async def test_a_trace_is_one_record(start_daemon: Starter, setting: str) -> None:
    said = tomllib.loads(section("Stack traces").partition("```toml\n")[2].partition("```")[0])
    assert setting in said["multiline_listeners"] or setting == "syslog_udp_listen"
    daemon = await start_daemon(**said | {"multiline_listeners": setting, "multiline_window": "100ms"})
    if setting == "tcp_listen":
        reader, writer = await asyncio.open_connection(*daemon.listening[setting])
        for line in TRACE:
            writer.write(json.dumps({"service": "app", "message": line}).encode() + b"\n")
    elif setting == "syslog_tcp_listen":
        reader, writer = await asyncio.open_connection(*daemon.listening[setting])
        writer.write(b"\n".join(LINES) + b"\n")
    else:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for datagram in LINES:
                sock.sendto(datagram, tuple(daemon.listening[setting]))
    found: list[dict[str, Any]] = []
    while not found:  # the connection is open: it is the window that ends
        await asyncio.sleep(0.05)
        found = await daemon.logs()
    assert [record["message"] for record in found] == ["\n".join(TRACE)]
    if setting != "syslog_udp_listen":
        writer.close()
        await reader.read()


async def test_without_the_setting_each_line_is_a_record(daemon: RunningDaemon) -> None:
    await daemon.tcp("syslog_tcp_listen", b"\n".join(LINES) + b"\n")
    assert sorted(record["message"] for record in await daemon.logs()) == sorted(TRACE)


def test_a_listener_with_acknowledgements_joins_nothing() -> None:
    wrong: dict[str, Any] = {"multiline_listeners": "relp_listen, tcp_listen"}
    with pytest.raises(ValueError, match="multiline_listeners: relp_listen: not of syslog_tcp_listen, "):
        Settings(**wrong)


async def test_a_heartbeat_is_answered(daemon: RunningDaemon) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, tuple(daemon.listening["forward_listen"]))
        await loop.sock_sendall(sock, b"\0")
        async with asyncio.timeout(10):
            assert await loop.sock_recv(sock, 10) == b"\0"
