"""`POST /upload`: every entry of systemd's journal is stored once, whatever breaks in between."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
import zlib
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest

from logagg.collector import journal_upload
from logagg.protocols import journald

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from logagg.tests.daemons import RunningDaemon, Starter
    from logagg.tests.processes import free_port, gone, process, wait_ready
    from logagg.tests.senders import blocks
    from logagg.tests.test_journald import entry, stream, text
    from logagg.tests.test_journaling import running
else:
    from processes import free_port, gone, process, wait_ready
    from senders import blocks
    from test_journald import entry, stream, text
    from test_journaling import running

TOOLS = f"{os.environ['PATH']}:/lib/systemd:/usr/lib/systemd"
PROGRAM = {"User-Agent": "systemd-journal-upload 252"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "ONE_OF", 20)


async def upload(http: aiohttp.ClientSession, data: bytes | AsyncIterator[bytes], **headers: str) -> tuple[int, Any]:
    async with http.post("/upload", data=data, headers=PROGRAM | headers) as answer:
        return answer.status, await answer.json()


async def taken(http: aiohttp.ClientSession, data: bytes) -> bool:
    return (await upload(http, data))[0] == 200


async def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not await condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


class Open:
    """A request whose end has not come; `answer` is awaited at last."""

    def __init__(self, http: aiohttp.ClientSession, data: bytes, headers: dict[str, str]) -> None:
        self._ended = asyncio.Event()
        self._data = data
        self.answer = asyncio.create_task(self._post(http, headers))

    async def _post(self, http: aiohttp.ClientSession, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
        async with http.post("/upload", data=self._pieces(), headers=headers) as answer:
            return answer.status, dict(answer.headers)

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield self._data
        await self._ended.wait()

    async def cut(self) -> None:
        """Break the connection."""
        self.answer.cancel()
        await asyncio.wait([self.answer])


def opened(http: aiohttp.ClientSession, data: bytes, **headers: str) -> Open:
    return Open(http, data, PROGRAM | headers)


async def stored(daemon: RunningDaemon, sql: asyncpg.Connection) -> list[int]:
    """Return the numbers of all records, once nothing waits; the books balance."""

    async def nothing_waits() -> bool:
        return not (await daemon.metric("logagg_buffer_records") or await daemon.metric("logagg_journal_records"))

    await until(nothing_waits)
    async with daemon.http.get("/metrics", headers={"Accept": "application/json"}) as answer:
        book = (await answer.json())["counters"]["journald"]
    names = ("stored", "duplicate", "quarantined", "dropped", "journaled")
    assert book["received"] + book.get("replayed", 0) == sum(book.get(name, 0) for name in names), book
    return await numbers(sql)


async def numbers(sql: asyncpg.Connection) -> list[int]:
    rows = await sql.fetch("select message from logs")
    return sorted(int(row[0].split()[1]) for row in rows)


async def test_a_request_of_many_batches(daemon: RunningDaemon, sql: asyncpg.Connection) -> None:
    assert await upload(daemon.http, stream(0, 500)) == (200, {"stored": 500, "repeated": 0})
    assert await stored(daemon, sql) == list(range(500))
    (record,) = await daemon.logs(q='"message 17"')
    assert (record["host"], record["service"], record["level"]) == ("web-1", "sshd", "ERROR")
    assert await upload(daemon.http, b"") == (200, {"stored": 0, "repeated": 0})


async def test_what_comes_again_is_stored_once(daemon: RunningDaemon, sql: asyncpg.Connection) -> None:
    await upload(daemon.http, stream(0, 200))
    for start, stop in ((0, 200), (0, 330), (329, 330), (329, 340), (330, 405), (330, 410), (409, 500)):
        status, _ = await upload(daemon.http, stream(start, stop))
        assert status == 200
    assert await stored(daemon, sql) == list(range(500))


async def test_a_transaction_may_be_smaller_than_a_batch(start_daemon: Starter, sql: asyncpg.Connection) -> None:
    daemon = await start_daemon(flush_records=7, batch_records=5)
    for stop in (333, 500):
        assert (await upload(daemon.http, stream(0, stop)))[0] == 200
    assert await stored(daemon, sql) == list(range(500))


async def test_a_connection_that_breaks_leaves_whole_batches(daemon: RunningDaemon, sql: asyncpg.Connection) -> None:
    first = opened(daemon.http, stream(0, 300)[:-20])
    await until(lambda: sql.fetchval("select count(*) > 100 from logs"))
    await first.cut()
    status, counts = await upload(daemon.http, stream(0, 400))
    assert (status, counts["stored"] + counts["repeated"]) == (200, 400)
    assert counts["repeated"] > 100
    assert await stored(daemon, sql) == list(range(400))


async def test_a_newer_request_of_the_same_journal_ends_the_older(
    daemon: RunningDaemon, sql: asyncpg.Connection
) -> None:
    other = stream(0, 100).replace(b"__CURSOR=s=", b"__CURSOR=s=f").replace(b"MESSAGE=message ", b"MESSAGE=other 1000")
    elsewhere = opened(daemon.http, other)
    first = opened(daemon.http, stream(0, 300))
    await until(lambda: sql.fetchval("select count(*) > 200 from logs"))
    status, _ = await upload(daemon.http, stream(0, 400))
    assert status == 200
    assert (await first.answer)[0] == 503
    assert not elsewhere.answer.done()
    await elsewhere.cut()
    assert [number for number in await stored(daemon, sql) if number < 1000] == list(range(400))


async def test_requests_that_overlap_store_once(daemon: RunningDaemon, sql: asyncpg.Connection) -> None:
    answers = await asyncio.gather(*(upload(daemon.http, stream(0, 300 + more)) for more in range(0, 60, 10)))
    assert 200 in [status for status, _ in answers]
    assert {status for status, _ in answers} <= {200, 503}
    assert (await upload(daemon.http, stream(0, 400)))[0] == 200
    assert await stored(daemon, sql) == list(range(400))


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_a_content_encoding_is_refused(daemon: RunningDaemon, encoding: str) -> None:
    status, answer = await upload(daemon.http, zlib.compress(stream(0, 9)), **{"Content-Encoding": encoding})
    assert (status, "Content-Encoding" in answer["detail"]) == (415, True)


async def test_the_program_may_not_be_silent_for_long(start_daemon: Starter, sql: asyncpg.Connection) -> None:
    daemon = await start_daemon(http_body_timeout="50ms")
    first = opened(daemon.http, stream(0, 30))
    assert (await first.answer)[0] == 408
    assert (await upload(daemon.http, stream(0, 40)))[0] == 200
    assert await stored(daemon, sql) == list(range(40))


async def test_any_other_sender_may_be_silent_and_is_stored_meanwhile(
    start_daemon: Starter, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_upload, "QUIET", 0.05)
    daemon = await start_daemon(http_body_timeout="10ms")
    follow = opened(daemon.http, stream(0, 30) + entry(30)[:-9], **{"User-Agent": "curl/8"})
    await until(lambda: sql.fetchval("select count(*) = 30 from logs"))
    assert not follow.answer.done()
    await follow.cut()


async def test_entries_without_a_cursor_and_those_that_cannot_be_read(
    daemon: RunningDaemon, sql: asyncpg.Connection
) -> None:
    data = stream(0, 3) + b"no field\n\n" + text(MESSAGE="message 3") + stream(4, 9)
    assert await upload(daemon.http, data) == (200, {"stored": 10, "repeated": 0})
    assert await stored(daemon, sql) == list(range(9))
    assert await sql.fetchval("select count(*) from quarantine") == 1


# PostgreSQL goes and comes.


async def test_while_postgresql_is_away_the_program_is_told_no(start_daemon: Starter) -> None:
    """What was on its way then is in our journal, and not stored again."""
    with running() as server:
        daemon = await start_daemon(database_url=server.url, ack_timeout="300ms", journal_after="100ms")
        sql = await asyncpg.connect(server.url)
        first = opened(daemon.http, stream(0, 300))
        await until(lambda: sql.fetchval("select count(*) > 200 from logs"))
        await sql.close()
        await first.cut()
        await asyncio.to_thread(server.stop)
        status, answer = await upload(daemon.http, stream(0, 350))
        assert status == 503, answer
        async with daemon.http.post("/upload", data=stream(0, 9), headers=PROGRAM) as refused:
            assert (refused.status, int(refused.headers["Retry-After"]) > 0) == (503, True)
        await asyncio.to_thread(server.start)
        await until(lambda: taken(daemon.http, stream(0, 400)))
        sql = await asyncpg.connect(server.url)
        assert await stored(daemon, sql) == list(range(400))
        await sql.close()


async def test_what_an_older_request_left_behind_is_waited_for(start_daemon: Starter, sql: asyncpg.Connection) -> None:
    daemon = await start_daemon(ack_timeout="500ms", journal_size=0)
    async with sql.transaction():
        await sql.execute("lock table logs in access exclusive mode")
        for stop in (200, 230):
            assert not await taken(daemon.http, stream(0, stop))
    await until(lambda: taken(daemon.http, stream(0, 400)))
    assert await stored(daemon, sql) == list(range(400))


async def test_batches_in_our_journal_are_waited_for(start_daemon: Starter, sql: asyncpg.Connection) -> None:
    daemon = await start_daemon(ack_timeout="500ms", journal_after="100ms", flush_lanes=1)
    async with sql.transaction():
        await sql.execute("lock table logs in access exclusive mode")
        async with daemon.http.post("/ingest", data=b'{"message": "other 1000"}') as answer:  # the lane is stuck now
            assert answer.status == 503
        for stop in (300, 330):
            assert not await taken(daemon.http, stream(0, stop))
        assert await daemon.metric("logagg_journal_records") == 300
    await until(lambda: taken(daemon.http, stream(0, 400)))
    assert await stored(daemon, sql) == [*range(400), 1000]


# The real programs.


@pytest.fixture
def make_journal(tmp_path: Path) -> Callable[[Iterable[int]], None]:
    """Add entries to a journal in the folder `journal`."""
    remote = shutil.which("systemd-journal-remote", path=TOOLS)
    if remote is None or shutil.which("systemd-journal-upload", path=TOOLS) is None:
        pytest.skip("no systemd-journal-upload (Debian: systemd-journal-remote)")
    (tmp_path / "journal").mkdir()

    def make(which: Iterable[int]) -> None:
        data = b"".join(map(entry, which))
        subprocess.run(
            [remote, "-o", tmp_path / "journal" / "test.journal", "-"], input=data, check=True, capture_output=True
        )

    return make


async def program(url: str, folder: Path) -> asyncio.subprocess.Process:
    command = shutil.which("systemd-journal-upload", path=TOOLS) or ""
    state = f"--save-state={folder / 'state'}"
    options = (f"--url={url}", state, f"--directory={folder / 'journal'}", "--follow=no")
    return await asyncio.create_subprocess_exec(command, *options, stderr=asyncio.subprocess.DEVNULL)


async def test_the_program_again_and_again(
    daemon: RunningDaemon, sql: asyncpg.Connection, tmp_path: Path, make_journal: Callable[[Iterable[int]], None]
) -> None:
    (block,) = blocks("systemd-journal-upload", "ini")
    given = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)["URL"]
    url = given.replace("127.0.0.1:8000", str(daemon.listening["http_listen"]))
    assert url != given
    make_journal(range(300))
    for _ in range(2):
        assert await (await program(url, tmp_path)).wait() == 0
    assert await stored(daemon, sql) == list(range(300))
    shutil.copy(tmp_path / "state", tmp_path / "before")
    make_journal(range(300, 400))
    assert await (await program(url, tmp_path)).wait() == 0
    shutil.copy(tmp_path / "before", tmp_path / "state")
    assert await (await program(url, tmp_path)).wait() == 0
    assert await stored(daemon, sql) == list(range(400))
    assert await daemon.metric("logagg_records_duplicate_total", transport="journald") >= 100


async def test_the_daemon_is_killed_in_the_middle(
    database_url: str, sql: asyncpg.Connection, tmp_path: Path, make_journal: Callable[[Iterable[int]], None]
) -> None:
    make_journal(range(6_000))
    port = free_port()
    settings = {"database_url": database_url, "http_listen": f"127.0.0.1:{port}", "data_dir": str(tmp_path / "data")}
    with process(**settings) as daemon:
        await asyncio.to_thread(wait_ready, port)
        sender = await program(f"http://127.0.0.1:{port}", tmp_path)
        await until(lambda: sql.fetchval("select count(*) > 0 from logs"))
        daemon.kill()
        assert await sender.wait() == 1
    await gone(sql)
    with process(**settings):
        await asyncio.to_thread(wait_ready, port)
        assert await (await program(f"http://127.0.0.1:{port}", tmp_path)).wait() == 0
    assert await numbers(sql) == list(range(6_000))


async def test_a_stop_ends_the_program_with_503_and_the_next_daemon_takes_the_rest(
    database_url: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    port = free_port()
    settings = {"database_url": database_url, "http_listen": f"127.0.0.1:{port}", "data_dir": str(tmp_path / "data")}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        with process(**settings) as daemon:
            await asyncio.to_thread(wait_ready, port)
            first = opened(http, stream(0, 2000))
            await until(lambda: sql.fetchval("select count(*) > 500 from logs"))
            daemon.terminate()
            status, headers = await first.answer
            assert (status, "Retry-After" in headers) == (503, True)
            assert await asyncio.to_thread(daemon.wait) == 0
        with process(**settings):
            await asyncio.to_thread(wait_ready, port)
            assert (await upload(http, stream(0, 2000)))[0] == 200
    assert await numbers(sql) == list(range(2000))
