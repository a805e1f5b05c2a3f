"""Sockets that systemd hands over: by name or port, open across a restart, refused when nobody wants them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import asyncpg
import pytest

from logagg.collector.sockets import Inherited
from logagg.collector.units import Address

if TYPE_CHECKING:
    from logagg.tests.processes import PATIENCE, environment, events, free_port, wait_ready
else:
    from processes import PATIENCE, environment, events, free_port, wait_ready


def bound(kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        sock.listen(1024)
    return sock


def activated(sockets: dict[str, socket.socket], folder: str, **settings: str) -> subprocess.Popen[str]:
    """Start a daemon as systemd does, with these sockets under these names."""
    given = list(sockets.values())
    moves = " ".join(f"{3 + at}<&{100 + at}" for at in range(len(given)))
    for at, sock in enumerate(given):  # out of the way of 3, 4 ...
        os.dup2(sock.fileno(), 100 + at, inheritable=True)
    env = environment(data_dir=folder, **settings)
    env |= {"LISTEN_FDS": str(len(given)), "LISTEN_FDNAMES": ":".join(sockets), "PYTHON": sys.executable}
    script = f'exec {moves}; LISTEN_PID=$$ exec "$PYTHON" -m logagg.cli serve'
    try:
        command = [shutil.which("bash") or "sh", "-c", script]
        numbers = tuple(100 + at for at in range(len(given)))
        return subprocess.Popen(command, env=env, pass_fds=numbers, stderr=subprocess.PIPE, text=True)
    finally:
        for at in range(len(given)):
            os.close(100 + at)


def test_without_sockets_a_listener_makes_its_own() -> None:
    for said in ({}, {"LISTEN_PID": "1", "LISTEN_FDS": "2"}, {"LISTEN_PID": "7", "LISTEN_FDS": "many"}):
        inherited = Inherited.of(dict(said), pid=7)
        assert inherited.place("tcp_listen", Address("::1", 1), socket.SOCK_STREAM).handed is None
        inherited.check()


def test_a_socket_belongs_to_its_name_else_to_its_kind_and_port() -> None:
    with bound(socket.SOCK_STREAM) as one, bound(socket.SOCK_STREAM) as two, bound(socket.SOCK_DGRAM) as three:
        inherited = Inherited([("logagg.socket", one), ("tcp_listen", two), ("logagg.socket", three)])
        port = one.getsockname()[1]
        assert inherited.place("tcp_listen", Address("127.0.0.1", port), socket.SOCK_STREAM).handed is two
        assert inherited.place("udp", Address("127.0.0.1", port), socket.SOCK_DGRAM).handed is None
        assert inherited.place("http_listen", Address("127.0.0.1", port), socket.SOCK_STREAM).handed is one
        with pytest.raises(OSError, match=f"a UDP socket 'logagg.socket' on .*{three.getsockname()[1]}.*no .*setting"):
            inherited.check()


def test_a_socket_that_no_setting_wants_ends_the_start(database_url: str) -> None:
    with tempfile.TemporaryDirectory(prefix="logagg-test-") as folder, bound(socket.SOCK_STREAM) as sock:
        daemon = activated({"metrics": sock}, folder, database_url=database_url)
        _, log = daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 1
    assert "systemd hands over a TCP socket 'metrics'" in events(log)[-1]["reason"]


async def test_what_is_sent_while_nobody_listens_is_read_by_the_next_daemon(database_url: str) -> None:
    http = free_port()
    settings = {"database_url": database_url, "http_listen": f"127.0.0.1:{http}"}
    connection = await asyncpg.connect(database_url)
    with (
        tempfile.TemporaryDirectory(prefix="logagg-test-") as folder,
        bound(socket.SOCK_STREAM) as tcp,
        bound(socket.SOCK_DGRAM) as udp,
    ):
        sockets = {"tcp_listen": tcp, "syslog_udp_listen": udp}
        for run in ("first", "second"):
            with socket.create_connection(tcp.getsockname()) as sender:  # nobody reads it yet
                sender.sendall(b'{"message": "%b"}\n' % run.encode())
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"<13>Oct 11 22:14:15 host app: %b" % run.encode(), udp.getsockname())
            daemon = activated(sockets, folder, **settings)
            try:
                await asyncio.to_thread(wait_ready, http)
                while await connection.fetchval("select count(*) from logs where message = $1", run) < 2:
                    await asyncio.sleep(0.02)
            finally:
                daemon.send_signal(signal.SIGTERM)
                _, log = await asyncio.to_thread(daemon.communicate, timeout=PATIENCE)
            assert daemon.returncode == 0, log
    await connection.close()
