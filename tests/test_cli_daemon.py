"""The command line, as a program of its own, against a whole daemon: what is sent is found again."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon

LINES = [
    {"timestamp": "2026-11-20T10:00:00.5Z", "level": "INFO", "service": "web", "message": "GET /a 200", "ms": 12},
    {"timestamp": "2026-11-20T10:00:01Z", "level": "INFO", "service": "web", "message": "GET /b 200", "ms": 7},
    {
        "timestamp": "2026-11-20T10:05:00Z", "level": "ERROR", "service": "billing", "host": "db1",
        "message": "Traceback:\n  line 1\n\x1b[2Jboom",
        "user": {"name": "Ada L"}, "big": 18446744073709551615,
    },
]  # fmt: skip


async def logagg(daemon: RunningDaemon, *args: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run the program; return its exit code, standard output and standard error."""
    command = [sys.executable, "-m", "logagg.cli", *args, "--url", f"http://{daemon.listening['http_listen']}"]
    done = await asyncio.to_thread(subprocess.run, command, input=stdin, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def send(daemon: RunningDaemon) -> None:
    stdin = "\n".join(map(json.dumps, LINES)).encode()
    assert await logagg(daemon, "send", stdin=stdin) == (0, "3 records stored\n", "")


async def test_what_is_sent_is_found(daemon: RunningDaemon) -> None:
    assert await logagg(daemon, "search") == (1, "", "")
    await send(daemon)
    assert await logagg(daemon, "search", "--utc") == (
        0,
        "2026-11-20 10:00:00.500Z INFO    -   web     GET /a 200 ms=12\n"
        "2026-11-20 10:00:01.000Z INFO    -   web     GET /b 200 ms=7\n"
        "2026-11-20 10:05:00.000Z ERROR   db1 billing Traceback:"
        ' user.name="Ada L" big=18446744073709551615\n'
        "      line 1\n"
        "    \\x1b[2Jboom\n",
        "",
    )
    assert (await logagg(daemon, "search", "get", "--newest-first", "-o", "raw"))[1] == "GET /b 200\nGET /a 200\n"
    assert (await logagg(daemon, "search", "--level", "err", "-o", "raw"))[1] == f"{LINES[2]['message']}\n"
    assert await logagg(daemon, "search", "nowhere") == (1, "", "")


async def test_every_form_holds_the_same_records(daemon: RunningDaemon) -> None:
    await send(daemon)
    lines = [json.loads(line) for line in (await logagg(daemon, "search", "-o", "jsonl"))[1].splitlines()]
    async with daemon.http.get("/logs", params={"order": "oldest"}) as answer:
        assert lines == await answer.json()
    assert lines == json.loads((await logagg(daemon, "search", "-o", "json"))[1])
    assert lines[2]["attributes"]["big"] == LINES[2]["big"]
    table = (await logagg(daemon, "search", "-o", "csv", "service:web"))[1].splitlines()
    assert [line.split(",")[0] for line in table] == ["id", *(str(line["id"]) for line in lines[:2])]


async def test_all_records_in_pages(daemon: RunningDaemon) -> None:
    text = b"".join(b"line %d of many\n" % n for n in range(2500))
    assert (await logagg(daemon, "send", "--service", "many", stdin=text))[1] == "2500 records stored\n"
    # Signs that mean something in a URL and in a Link header come back in the query of the next page.
    for args in (["-n", "0"], ["-n", "2500"], ["-n", "0", 'many level>=debug -"a, b; <c>&d=é+%20"']):
        assert (await logagg(daemon, "search", "-o", "raw", *args))[1].encode() == text
    code, out, err = await logagg(daemon, "search", "many", "-n", "3", "-o", "raw")
    assert (code, out) == (0, "line 2497 of many\nline 2498 of many\nline 2499 of many\n")
    assert err == "... older records match: --limit 30, or 0 for all\n"


async def test_counts(daemon: RunningDaemon) -> None:
    await send(daemon)
    assert await logagg(daemon, "aggregate") == (
        0, "SERVICE  LEVEL  COUNT\nweb      INFO       2\nbilling  ERROR      1\n", "",
    )  # fmt: skip
    assert (await logagg(daemon, "aggregate", "get", "--by", "host", "-o", "csv"))[1] == "host,count\n,2\n"
    code, chart, _ = await logagg(daemon, "histogram", "--utc", "--interval", "5m")
    assert code == 0
    assert [line.split()[1:3] for line in chart.splitlines()[:2]] == [["10:00", "2"], ["10:05", "1"]]
    assert chart.splitlines()[-1] == "3 records, 5m a bar  █ error and worse 1  ▒ notice, info 2"
    code, found, _ = await logagg(daemon, "patterns", "--since", "2026-11-20", "--utc", "service:web")
    assert code == 0
    assert [line.split()[0] for line in found.splitlines()] == ["COUNT", "2"]
    assert "GET" in found


async def test_a_bad_question_shows_the_place(daemon: RunningDaemon) -> None:
    code, out, err = await logagg(daemon, "search", "timeout (service:web")
    assert (code, out) == (2, "")
    assert err.startswith("logagg: ")
    assert "\n  timeout (service:web\n" in err
    assert err.endswith("^\n")
    code, _, err = await logagg(daemon, "aggregate", "--by", "service,,level")
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = await logagg(daemon, "histogram", "--interval", "soon")
    assert (code, err.count("\n")) == (2, 1)
    assert "--interval: " in err


async def test_bytes_that_are_not_utf_8_are_kept(daemon: RunningDaemon, database_url: str) -> None:
    assert (await logagg(daemon, "send", stdin=b"caf\xe9 closed\n"))[:2] == (0, "1 record stored\n")
    assert (await logagg(daemon, "search", "closed", "-o", "raw"))[1] == "caf\ufffd closed\n"
    connection = await asyncpg.connect(database_url)
    try:
        assert b"caf\xe9 closed" in await connection.fetchval("select raw from logs")
    finally:
        await connection.close()
