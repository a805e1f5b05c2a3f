"""The real rsyslog to a real daemon, by the blocks of docs/senders.md as they stand there, but for ports and paths."""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import asyncpg

    from logagg.tests.senders import (
        Daemon,
        append,
        assert_stored,
        blocks,
        corpus_lines,
        ended,
        in_folder,
        make_certificates,
        need,
        serving,
    )
else:
    from senders import append, assert_stored, blocks, corpus_lines, ended, in_folder, make_certificates, need, serving


@pytest.fixture
def daemon_process(database_url: str, tmp_path: Path) -> Iterator[Daemon]:
    with serving(database_url, tmp_path) as daemon:
        yield daemon


@contextmanager
def rsyslog(action: str, folder: Path, services: list[str]) -> Iterator[None]:
    """Run a private rsyslogd that follows a file for each service and does `action` with its lines.

    Control characters stay as they are, because imfile, unlike rsyslog's network inputs, does not escape them.
    """
    program = need("rsyslogd", "rsyslog")
    folder.mkdir()
    inputs = []
    for service in services:
        (folder / service).touch()
        inputs.append(f'input(type="imfile" File="{folder / service}" Tag="{service}:" Facility="local3")')
    head = f'global(workDirectory="{folder}" maxMessageSize="64k")\nmodule(load="imfile")\n'
    text = head + "\n".join(inputs) + "\n" + action.replace("/var/log/", f"{folder}/")
    (folder / "rsyslog.conf").write_text(text)
    command = [program, "-n", "-f", str(folder / "rsyslog.conf"), "-i", str(folder / "rsyslog.pid")]
    with (folder / "rsyslog.out").open("wb") as out, ended(subprocess.Popen(command, stdout=out, stderr=out)):
        yield


def send(daemon: Daemon, folder: Path, action: str, at_once: int = 500) -> None:
    lines = corpus_lines(each=500)
    with rsyslog(daemon.here(action), folder, list(lines)):
        append(daemon, folder, lines, at_once)
    assert_stored(daemon, lines, level="NOTICE")


@pytest.mark.parametrize(
    ("heading", "at_once"),
    # By UDP 200 lines at a time, and the next when they are stored: that many fit into the kernel's smallest buffer,
    # so none is lost, however slow the machine. By TCP the daemon holds the sender back itself.
    [("TCP, octet-counted", 500), ("TCP, lines", 500), ("UDP", 20), ("RELP", 500), ("Elasticsearch's bulk", 500)],
)
def test_rsyslog(daemon_process: Daemon, tmp_path: Path, heading: str, at_once: int) -> None:
    (action,) = blocks(heading, "rsyslog")
    send(daemon_process, tmp_path / "rsyslog", action, at_once)


@pytest.mark.parametrize("heading", ["TCP over TLS", "RELP over TLS"])
def test_rsyslog_over_tls(database_url: str, tmp_path: Path, heading: str) -> None:
    (action,) = blocks(heading, "rsyslog")
    settings = make_certificates(tmp_path)
    with serving(database_url, tmp_path, settings) as daemon:
        send(daemon, tmp_path / "rsyslog", in_folder(action, tmp_path))


async def test_rsyslog_sends_a_bulk_again_that_was_refused(
    database_url: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    """While nothing can be stored, neither in PostgreSQL nor in the journal, each bulk is answered with 503."""
    (action,) = blocks("Elasticsearch's bulk", "rsyslog")
    folder, texts = tmp_path / "rsyslog", ["one", "two", "three"]
    with serving(database_url, tmp_path, 'journal_size = 0\nack_timeout = "100ms"') as daemon:
        often = daemon.here(action).replace('resumeRetryCount="-1"', 'resumeRetryCount="-1" action.resumeInterval="1"')
        with rsyslog(often, folder, ["shop"]):
            async with sql.transaction():
                await sql.execute("lock table logs")
                (folder / "shop").write_text("".join(f"{text}\n" for text in texts))
                await asyncio.to_thread(daemon.wait_received, "elasticsearch", 3 * len(texts))  # the first, and again
            await asyncio.to_thread(daemon.wait_for, Counter(shop=len(texts)))
        assert {record["message"] for record in daemon.records("shop")} == set(texts)
