"""The daemon as a process: how it starts, how it fails to, and that a stop loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

if TYPE_CHECKING:
    from logagg.tests.processes import PATIENCE, environment, events, free_port, process, wait_ready
else:
    from processes import PATIENCE, environment, events, free_port, process, wait_ready


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_stores_what_was_received(database_url: str, number: signal.Signals) -> None:
    http, tcp = free_port(), free_port()
    listeners = {"http_listen": f"127.0.0.1:{http}", "tcp_listen": f"127.0.0.1:{tcp}"}
    with process(database_url=database_url, flush_interval="1h", **listeners) as daemon:
        wait_ready(http)
        with socket.create_connection(("127.0.0.1", tcp)) as sock:
            sock.sendall(b'{"message": "received"}\n' * 1000 + b'{"message": "without an end"}')
            await asyncio.sleep(0.3)  # the daemon reads it; and would not store it for an hour
            daemon.send_signal(number)
            assert sock.recv(1) == b""  # the daemon says first that it stops, and reads on until we do
            sock.sendall(b', "but"\n{"message": "still on its way"}\n')
        _, log = daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 0
    said = [event["event"] for event in events(log)]
    assert [said[-3], said[-1]] == ["stopping", "stopped"]
    assert said[-2].startswith("put in quarantine")
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("select count(*) from logs where message = 'received'") == 1000
    assert await connection.fetchval("select count(*) from logs where message = 'still on its way'") == 1
    assert await connection.fetchval("select count(*) from quarantine") == 1
    await connection.close()


def test_systemd_is_told_when_the_daemon_is_ready_and_when_it_stops(database_url: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)
        told = environment(database_url=database_url)
        told |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with subprocess.Popen(
            [sys.executable, "-m", "logagg.cli", "serve"], env=told, stderr=subprocess.PIPE
        ) as daemon:
            heard: list[str] = []
            while not any(line.startswith("READY=1") for line in heard) or heard.count("WATCHDOG=1") < 3:
                heard.append(systemd.recv(4096).decode())
            daemon.terminate()
            while "STOPPING=1" not in heard:
                heard.append(systemd.recv(4096).decode())
            daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 0


def test_a_taken_port_is_said_with_its_setting(database_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with process(database_url=database_url, tcp_listen=address) as daemon:
            _, log = daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 1
    assert events(log)[-1]["reason"] == f"tcp_listen: cannot listen on {address}: Address already in use"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://db:no-port/none", "not an address of PostgreSQL"),
        ("postgresql://nobody@127.0.0.1:1/none", "Connect call failed|Connection refused"),
    ],
)
def test_a_postgresql_that_cannot_be_reached_is_a_clear_end(url: str, reason: str) -> None:
    with process(database_url=url, start_timeout="1s", journal_size="0") as daemon:
        _, log = daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 1
    assert any(part in events(log)[-1]["reason"] for part in reason.split("|"))


def test_a_misspelt_setting_ends_the_start_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "logagg.toml"
    path.write_text('http_listn = ":1"\n')
    with process(config=str(path)) as daemon:
        _, log = daemon.communicate(timeout=PATIENCE)
    assert daemon.returncode == 2
    assert f"{path}:1: http_listn: unknown setting" in log


def test_a_second_daemon_on_one_folder_is_told_who_has_it(database_url: str, tmp_path: Path) -> None:
    http = free_port()
    settings = {"database_url": database_url, "data_dir": str(tmp_path)}
    with process(**settings, http_listen=f"127.0.0.1:{http}") as first:
        wait_ready(http)
        with process(**settings) as second:
            _, log = second.communicate(timeout=PATIENCE)
    assert second.returncode == 1
    assert events(log)[-1]["reason"] == (
        f"{tmp_path}/journal: process {first.pid} has this journal;"
        " give this daemon another data_dir, or set journal_size to 0"
    )


@pytest.mark.parametrize(("wide", "here"), [("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")])
def test_what_to_try_is_an_address_that_can_be_reached(database_url: str, wide: str, here: str) -> None:
    port = free_port()
    with process(database_url=database_url, http_listen=f"{wide}{port}", insecure="true") as daemon:
        assert daemon.stderr
        said = next(event for line in daemon.stderr for event in events(line) if event["event"] == "try it")
    assert said["page"] == f"http://{here}{port}"
    assert said["send"].startswith(f"curl http://{here}{port}/ingest ")
    assert said["find"].endswith(f" search hello --url http://{here}{port}")


def answer(url: str, body: bytes | None = None) -> bytes | None:
    """Return the answer; None for a 503 that says when to ask again."""
    try:
        with urllib.request.urlopen(url, data=body, timeout=30) as answered:  # noqa: S310  # our own daemon
            read: bytes = answered.read()
            return read
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 503 or not error.headers["Retry-After"]:
                raise
        return None


def until_answered(url: str, body: bytes | None = None) -> bytes:
    end = time.monotonic() + PATIENCE
    while (got := answer(url, body)) is None:
        assert time.monotonic() < end
    return got


def test_an_embedded_postgresql_that_dies_is_started_again() -> None:
    port = free_port()
    # Not below pytest's folder: as root the server runs as another user, who cannot enter that.
    with (
        tempfile.TemporaryDirectory(prefix="logagg-test-") as folder,
        process(data_dir=folder, http_listen=f"127.0.0.1:{port}", ack_timeout="1s") as daemon,
    ):
        wait_ready(port)
        url = f"http://127.0.0.1:{port}"
        assert answer(f"{url}/ingest", b'{"message": "before"}')
        os.kill(int(Path(folder, "postgres", "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        until_answered(f"{url}/ingest", b'{"message": "after"}')
        end, found = time.monotonic() + PATIENCE, ["before"]
        while len(found) < 2 and time.monotonic() < end:  # it may be in the journal yet
            found = [record["message"] for record in json.loads(until_answered(f"{url}/logs?order=oldest"))]
        daemon.terminate()
        _, log = daemon.communicate(timeout=PATIENCE)
    assert found[0] == "before"
    assert set(found[1:]) == {"after"}
    assert daemon.returncode == 0
    assert "the embedded PostgreSQL has died; it is started again" in log


def test_bytes_that_are_no_http_are_a_line_of_the_log(database_url: str) -> None:
    http = free_port()
    junk = (
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: zz\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00" + bytes(60),
    )
    with process(database_url=database_url, http_listen=f"127.0.0.1:{http}") as daemon:
        wait_ready(http)
        for data in junk:
            with socket.create_connection(("127.0.0.1", http), timeout=PATIENCE) as sock:
                sock.sendall(data)
                assert sock.recv(99).startswith(b"HTTP/1.0 400 ")
        daemon.terminate()
        _, log = daemon.communicate(timeout=PATIENCE)
    said = [event for event in events(log) if event["logger"] == "aiohttp.server"]
    assert len(said) == 3  # TLS to a port without is usual: no line at all
    assert all(event["level"] == "warning" and "exception" not in event for event in said)
    assert said[0]["event"].startswith("Error handling request from 127.0.0.1: Bad status line: ")
    assert all(len(event["event"]) < 300 for event in said)
