"""The command line, as a program of its own, against a whole daemon: what is sent is found again."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from logagg.tests.daemons import RunningDaemon, Starter

LINES = [
    {"timestamp": "2026-11-20T10:00:00.5Z", "level": "INFO", "service": "web", "message": "GET /a 200", "ms": 12},
    {"timestamp": "2026-11-20T10:00:01Z", "level": "INFO", "service": "web", "message": "GET /b 200", "ms": 7},
    {
        "timestamp": "2026-11-20T10:05:00Z", "level": "ERROR", "service": "billing", "host": "db1",
        "message": "Traceback:\n  line 1\n\x1b[2Jboom",
        "user": {"name": "Ada L"}, "big": 18446744073709551615,
    },
]  # fmt: skip


async def logagg(
    daemon: RunningDaemon, *args: str, stdin: bytes = b"", scheme: str = "http", url: str | None = None
) -> tuple[int, str, str]:
    """Run the program; return its exit code, standard output and standard error."""
    url = url or f"{scheme}://{daemon.listening['http_listen']}"
    command = [sys.executable, "-m", "logagg.cli", *args, "--url", url]
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


async def test_one_record_in_full(daemon: RunningDaemon) -> None:
    await send(daemon)
    [record] = json.loads((await logagg(daemon, "search", "traceback", "-o", "json"))[1])
    number = str(record["id"])
    code, out, err = await logagg(daemon, "show", number, "--utc")
    assert (code, err) == (0, "")
    shown = {name: text for name, _, text in (line.partition(" ") for line in out.splitlines() if line[0] != " ")}
    assert {name: text.strip() for name, text in shown.items() if name != "received_at"} == {
        "id": number, "timestamp": "2026-11-20 10:05:00.000Z", "level": "ERROR", "service": "billing", "host": "db1",
        "source": record["source"], "message": "Traceback:", "user.name": '"Ada L"', "big": "18446744073709551615",
    }  # fmt: skip
    assert "\\x1b[2Jboom\n" in out
    assert json.loads((await logagg(daemon, "show", number, "-o", "json"))[1]) == [record]
    absent = str(record["id"] + 1)
    for args in ([absent], [absent, "-o", "json"], [absent, "-C", "2"]):
        assert await logagg(daemon, "show", *args) == (1, "", f"there is no record {absent}\n")
    code, out, err = await logagg(daemon, "show", "x")
    assert (code, out) == (2, "")
    assert "'x': expected a whole number, 0 to " in err


async def in_rows(daemon: RunningDaemon, messages: list[str]) -> list[dict[str, Any]]:
    """Have these stored, a second apart, each of the host that its first letter names."""
    rows = [
        {"message": each, "service": "s", "host": each[0], "timestamp": f"2026-11-20T10:00:{at:02}Z"}
        for at, each in enumerate(messages)
    ]
    async with daemon.http.post("/ingest", json=rows) as answer:
        assert answer.status == 200
    return await daemon.logs(order="oldest")


async def test_one_record_among_its_neighbours(daemon: RunningDaemon) -> None:
    stored = await in_rows(daemon, ["a0", "b0", "a1", "a2", "b1", "a3", "a4"])
    number = str(stored[3]["id"])
    expected = [row | {"match": row["message"] == "a2"} for row in stored if row["host"] == "a"]
    assert json.loads((await logagg(daemon, "show", number, "-C", "5", "-o", "json"))[1]) == expected
    code, out, _ = await logagg(daemon, "show", number, "-C", "1", "--utc")
    assert code == 0
    assert [(line[0], line.split()[-1]) for line in out.splitlines()] == [(" ", "a1"), (">", "a2"), (" ", "a3")]


async def test_context_of_matches_near_each_other(daemon: RunningDaemon) -> None:
    same = ["a0", "a1", "a2!", "a3", "a4!", "a5", "a6", "a7", "a8", "a9!", "a10!", "a11", "a12"]
    await in_rows(daemon, [*same[:4], "b0!", *same[4:7], "b1", *same[7:], "b2"])
    groups = [["a1", "a2!", "a3", "a4!", "a5"], ["b0!", "b1"], ["a8", "a9!", "a10!", "a11"]]

    async def found(*args: str) -> list[list[str]]:
        code, out, _ = await logagg(daemon, "search", '"*!*"', "--utc", *args)
        assert code == 0
        return [[line.split()[-1] for line in part.splitlines()] for part in out.split("--\n")]

    assert await found("-C", "1") == groups
    # In the order of their first match: of the newest first that is a4!, which stands before b0!.
    assert await found("-C", "1", "-r") == [groups[2][::-1], groups[0][::-1], groups[1][::-1]]
    # Groups that touch are one, and what stands between them is there once.
    assert await found("-C", "2") == [same, ["b0!", "b1", "b2"]]
    rows = json.loads((await logagg(daemon, "search", '"*!*"', "-C", "2", "-o", "json"))[1])
    assert len({row["id"] for row in rows}) == len(rows) == 16
    assert {row["message"] for row in rows if row["match"]} == {"a2!", "a4!", "b0!", "a9!", "a10!"}


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
async def test_whom_to_trust(start_daemon: Starter, tmp_path: Path) -> None:
    for name in ("own", "stranger"):
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key"]
        names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        make = ["openssl", "req", "-x509", *key, "-out", f"{name}.pem", "-days", "2", *names]
        await asyncio.to_thread(subprocess.run, make, check=True, capture_output=True, cwd=tmp_path)
    own, stranger, text, absent = (tmp_path / name for name in ("own.pem", "stranger.pem", "text.pem", "absent.pem"))
    text.write_text("no certificate\n")
    secrets = {"tls_certificate": own, "tls_key": tmp_path / "own.key", "tls_listeners": "http_listen"}
    daemon = await start_daemon(**secrets)
    url = f"https://{daemon.listening['http_listen']}"

    async def said(file: Path) -> str:
        code, out, err = await logagg(daemon, "search", "--ca-file", str(file), scheme="https")
        assert (code, out) == (2, "")
        assert err.startswith("logagg: ")
        assert err.count("\n") == 1
        return err.removeprefix("logagg: ").strip()

    how = "; --ca-file FILE (LOGAGG_CA_FILE) names the certificates to trust, SSL_CERT_FILE too"
    assert await said(absent) == f"{absent}: No such file or directory{how}"
    assert await said(text) == f"{text}: holds no certificate{how}"
    assert await said(tmp_path / "own.key") == f"{tmp_path / 'own.key'}: holds no certificate{how}"
    refused = f"the certificate of {url} is not trusted: "
    assert (await said(stranger)).startswith(refused)
    code, _, err = await logagg(daemon, "search", scheme="https")
    assert (code, err) == (2, f"logagg: {refused}self-signed certificate{how}\n")
    assert await logagg(daemon, "search", "--ca-file", str(own), scheme="https") == (1, "", "")
    other = url.replace("127.0.0.1", "localhost")
    _, _, err = await logagg(daemon, "search", "--ca-file", str(own), url=other)
    assert err == (
        f"logagg: the certificate of {other} is not trusted: Hostname mismatch, certificate is not valid for"
        " 'localhost'; the address has to be one of the names that are in it\n"
    )


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
async def test_who_asks_is_shown_by_a_certificate(start_daemon: Starter, tmp_path: Path) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for name in ("own", "stranger"):
        names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
        make = ["openssl", "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", *names]
        await asyncio.to_thread(subprocess.run, make, check=True, capture_output=True, cwd=tmp_path)
    own, own_key, both = (tmp_path / name for name in ("own.pem", "own.key", "both.pem"))
    both.write_bytes(own.read_bytes() + own_key.read_bytes())
    daemon = await start_daemon(tls_certificate=both, tls_client_ca=own, tls_listeners="http_listen")
    url = f"https://{daemon.listening['http_listen']}"

    async def said(*files: str | Path) -> tuple[int, str]:
        code, _, err = await logagg(daemon, "search", "--ca-file", str(own), *map(str, files), scheme="https")
        return code, err

    how = "--cert-file FILE (LOGAGG_CERT_FILE) and --key-file FILE (LOGAGG_KEY_FILE) show who asks"
    code, err = await said()
    assert code == 2
    assert err in (
        f"logagg: {url} closed the connection without an answer; does it want a certificate? {how}\n",
        f"logagg: {url} wants a certificate: {how}\n",
    )
    assert await said("--cert-file", both) == await said("--cert-file", own, "--key-file", own_key) == (1, "")
    stranger = tmp_path / "stranger.pem"
    code, err = await said("--cert-file", stranger, "--key-file", stranger.with_suffix(".key"))
    assert code == 2
    assert err in (
        f"logagg: {url} closed the connection without an answer; it may not take the certificate in {stranger}\n",
        f"logagg: {url} does not take the certificate in {stranger}\n",
    )
    assert await said("--cert-file", own) == (2, f"logagg: {own}: no certificate and its key; {how}\n")
    assert await said("--cert-file", "no.pem") == (2, f"logagg: no.pem: No such file or directory; {how}\n")
    assert await said("--key-file", own_key) == (2, f"logagg: {own_key}: a key without its certificate; {how}\n")


async def test_an_address_with_a_path_is_named(daemon: RunningDaemon) -> None:
    url = f"http://{daemon.listening['http_listen']}/foo/"
    where = "(404); leave out /foo, unless a proxy serves logagg there"
    for command, path in (["search"], "/logs"), (["show", "1"], "/logs/1"), (["tail"], "/logs/tail"):
        assert await logagg(daemon, *command, url=url) == (2, "", f"logagg: {url[:-1]} has no {path} {where}\n")


async def test_a_refusal_by_address_is_told_as_the_daemon_tells_it(start_daemon: Starter) -> None:
    daemon = await start_daemon(allow="http_listen=10.0.0.0/8")
    code, _, err = await logagg(daemon, "search")
    assert (code, err) == (
        2,
        f"logagg: http://{daemon.listening['http_listen']} refuses that (403):"
        " 127.0.0.1 is not in the networks that may reach http_listen\n",
    )
