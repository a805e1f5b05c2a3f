"""Real senders to a real daemon, by the blocks of docs/senders.md as they stand there (only ports are replaced)."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logagg.tests.senders import PAGE, PORTS, TLS_PORT, Daemon, blocks, corpus_lines, need, section, serving, shell
else:
    from senders import PAGE, PORTS, TLS_PORT, blocks, corpus_lines, need, section, serving, shell


@pytest.fixture
def daemon_process(database_url: str, tmp_path: Path) -> Iterator[Daemon]:
    with serving(database_url, tmp_path) as daemon:
        yield daemon


# --- The page --------------------------------------------------------------------------------------------------------

#: Below it are the blocks that no test runs.
NOT_RUN = "Not run by a test"


def headings() -> Iterator[tuple[str, str, str]]:
    """Return the heading of level two, the nearest heading, and the text of each part of the page."""
    parts = re.split(r"^(##+) (.*)$", PAGE, flags=re.MULTILINE)
    above = ""
    for level, heading, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        above = heading if level == "##" else above
        yield above, heading, text


def test_a_block_is_run_or_stands_among_those_that_are_not() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    with_blocks = {heading for above, heading, text in headings() if "```" in text and above != NOT_RUN}
    assert not {heading for heading in with_blocks if f'"{heading}"' not in tests}


def test_a_block_that_is_not_run_sends_where_the_daemon_listens() -> None:
    texts = [text for above, _, text in headings() if above == NOT_RUN]
    named = re.findall(r"(?:127\.0\.0\.1:|\bport:? |serverport=\")(\d+)", "".join(texts))
    assert named
    assert {int(port) for port in named} <= set(PORTS.values())


def test_the_table_of_protocols_is_true(daemon_process: Daemon) -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in section("Which protocol").splitlines()]
    listeners = [row for row in rows if len(row) == 3 and "_listen`" in row[2]]
    named: dict[str, int] = {}
    routes: set[str] = set()
    for _, where, settings in listeners:
        names, ports = re.findall(r"`(\w+)`", settings), [int(port) for port in re.findall(r"\b\d+\b", where)]
        named |= dict(zip(names, ports * len(names) if len(ports) == 1 else ports, strict=True))
        routes |= set(re.findall(r"`(/\S*)`", where))
    assert named == {**PORTS, "syslog_tls_listen": TLS_PORT}
    known = {re.sub(r"\{\w+\}", "INDEX", path) for path in daemon_process.get("/openapi.json")["paths"]}
    assert routes <= known


# --- logger ----------------------------------------------------------------------------------------------------------


def test_logger_as_documented(daemon_process: Daemon) -> None:
    need("logger", "bsdutils")
    (text,) = blocks("logger", "sh")
    shell(daemon_process.here(text))
    daemon_process.wait_for(Counter(backup=5))
    assert sorted((record["level"], record["message"]) for record in daemon_process.records("backup")) == [
        ("ERROR", "no space left on device"),
        ("INFO", "12 files copied"),
        ("NOTICE", "42 files copied"),
        ("NOTICE", "nightly backup begins"),
        ("WARNING", "disk is 90 % full"),
    ]


def test_logger_sends_files_in_each_of_its_forms(daemon_process: Daemon, tmp_path: Path) -> None:
    logger = need("logger", "bsdutils")
    texts = [line for lines in corpus_lines(each=20).values() for line in lines]
    file = tmp_path / "lines"
    file.write_text("".join(f"{text}\n" for text in texts))
    ways = {"udp": ["--udp"], "lines": ["--tcp"], "counted": ["--tcp", "--octet-count"]}
    forms = {f"{way}-{form}": [*ways[way], f"--{form}"] for way in ways for form in ("rfc3164", "rfc5424")}
    server = ["--server", "127.0.0.1", "--port", str(daemon_process.ports[5140])]
    for tag, options in forms.items():
        subprocess.run([logger, *server, *options, "--tag", tag, "--file", file], check=True, timeout=60)
        daemon_process.wait_for(Counter({tag: len(texts)}))
    for tag in forms:
        assert Counter(record["message"] for record in daemon_process.records(tag)) == Counter(texts), tag


# --- Python ----------------------------------------------------------------------------------------------------------


def test_python_as_documented(daemon_process: Daemon) -> None:
    for text in blocks("Python", "python"):
        subprocess.run([sys.executable, "-c", daemon_process.here(text)], check=True, timeout=60)
    daemon_process.wait_for(Counter(shop=2))
    assert sorted((record["level"], record["message"]) for record in daemon_process.records("shop")) == [
        ("ERROR", "card 17 was refused"),
        ("WARNING", "card 17 is about to expire"),
    ]


# --- curl and nc -----------------------------------------------------------------------------------------------------


def test_curl_as_documented(daemon_process: Daemon) -> None:
    need("curl", "curl")
    (text,) = blocks("curl", "sh")
    shell(daemon_process.here(text))
    # No waiting: curl was told that they are stored.
    first, *others = sorted(daemon_process.records("till"), key=lambda record: record["timestamp"])
    assert (first["timestamp"], first["level"]) == ("2026-11-20T10:00:00Z", "ERROR")
    assert [(other["message"], other["attributes"]) for other in others] == [
        ("drawer opened", {"drawer": 3}),
        ("drawer closed", {"drawer": 3}),
    ]


def test_nc_as_documented(daemon_process: Daemon) -> None:
    need("nc", "netcat-openbsd")
    (text,) = blocks("nc", "sh")
    shell(daemon_process.here(text))
    daemon_process.wait_for(Counter(cron=2))
    assert [record["message"] for record in daemon_process.records("cron")] == ["job started", "job ended"]


def test_nc_sends_a_file_of_the_corpus(daemon_process: Daemon, tmp_path: Path) -> None:
    nc = need("nc", "netcat-openbsd")
    lines = corpus_lines(each=500)
    file = tmp_path / "records.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for service, texts in lines.items():
            out.writelines(json.dumps({"service": service, "message": text}) + "\n" for text in texts)
    with file.open("rb") as content:
        subprocess.run([nc, "-N", "127.0.0.1", str(daemon_process.ports[5170])], stdin=content, check=True, timeout=60)
    daemon_process.wait_for(Counter(dict.fromkeys(lines, 500)))
    for service, texts in lines.items():
        assert [record["message"] for record in daemon_process.records(service)] == texts


async def test_a_stopping_daemon_stores_what_was_sent_on_open_connections(
    daemon_process: Daemon, database_url: str
) -> None:
    lines = [b'{"service": "last", "message": "%d"}\n' % number for number in range(1000)]
    with socket.create_connection(("127.0.0.1", daemon_process.ports[5170]), timeout=60) as sender:
        sender.sendall(lines[0])
        daemon_process.wait_for(Counter(last=1))
        sender.sendall(b"".join(lines[1:]))
        daemon_process.process.terminate()
        assert sender.recv(1) == b""  # it says that it stops, and reads on until we close
    assert daemon_process.process.wait(60) == 0
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("select count(*) from logs where service = 'last'") == len(lines)
    finally:
        await connection.close()
