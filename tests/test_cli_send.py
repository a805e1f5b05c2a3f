"""`logagg send`, against a server that plays what a daemon can answer to `POST /ingest`."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.cli import sending
from logagg.cli.main import cli

Run = Callable[..., Awaitable[Result]]


class Ingest:
    """Takes bodies; `refusals` are answered first, one a request; None among them takes that one."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.refusals: list[tuple[int, dict[str, str], bytes] | None] = []

    @property
    def lines(self) -> list[bytes]:
        return [line for body in self.bodies for line in body.splitlines()]

    @property
    def records(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]

    async def take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-ndjson"
        body = await request.read()
        if self.refusals and (refusal := self.refusals.pop(0)):
            status, headers, answer = refusal
            return web.Response(status=status, headers=headers, body=answer)
        self.bodies.append(body)
        poison = body.count(b"POISON")
        return web.json_response({"accepted": len(body.splitlines()) - poison, "quarantined": poison})


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch) -> Ingest:
    monkeypatch.setattr(sending, "_FIRST_PAUSE", 0.01)
    return Ingest()


@pytest.fixture
async def send(ingest: Ingest) -> AsyncIterator[Run]:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/ingest", ingest.take)
    async with TestServer(app, host="127.0.0.1") as server:

        async def run(*args: str, data: bytes = b"") -> Result:
            command = ["send", "--url", str(server.make_url("")), *args]
            return await asyncio.to_thread(CliRunner().invoke, cli, command, input=data)

        yield run


async def test_lines_become_messages(send: Run, ingest: Ingest) -> None:
    result = await send("--service", "web", "--level", "warn", "--host", "h", data=b"one\r\n\n  \n two \nthree")
    assert (result.exit_code, result.output) == (0, "3 records stored\n")
    given_fields = {"service": "web", "host": "h", "level": "WARNING"}
    assert ingest.records == [{"message": text, **given_fields} for text in ("one", " two ", "three")]


async def test_a_json_object_is_a_record_of_its_own(send: Run, ingest: Ingest) -> None:
    lines = [
        b'{"message": "a",  "n": 1e400, "service": "own"}',
        b" {} ",
        b'{"msg": "b"}',
        b"[1]",
        b"{not json}",
        b'{"a": "\xff"}',
        b"{" * 3000,
    ]
    assert (await send("--service", "web", data=b"\n".join(lines))).output == "7 records stored\n"
    assert ingest.lines[:3] == [lines[0], b'{"service": "web"}', b'{"service": "web", "msg": "b"}']
    # What is no JSON object is a message; bytes that are not UTF-8 go out as they came.
    assert [json.loads(line)["message"] for line in (*ingest.lines[3:5], ingest.lines[6])] == [
        "[1]",
        "{not json}",
        "{" * 3000,
    ]
    assert ingest.lines[5] == b'{"message": "{\\"a\\": \\"\xff\\"}", "service": "web"}'


async def test_the_form_can_be_fixed(send: Run, ingest: Ingest) -> None:
    await send("--text", data=b'{"a": 1}\n')
    await send("--json", data=b'{"a":1}\nwhatever\n')
    assert ingest.lines == [b'{"message": "{\\"a\\": 1}"}', b'{"a":1}', b"whatever"]
    refused = await send("--json", "--service", "x", data=b"{}")
    assert refused.exit_code == 2
    assert "--json sends lines as they stand" in refused.stderr


async def test_a_file_and_what_went_into_quarantine(send: Run, ingest: Ingest, tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"".join(b"line %d\n" % n for n in range(12_000)) + b"POISON")
    assert (await send(str(path))).output == "12000 records stored, 1 put into quarantine\n"
    assert [record["message"] for record in ingest.records[:12_000]] == [f"line {n}" for n in range(12_000)]
    assert all(len(body.splitlines()) <= 5000 for body in ingest.bodies)
    assert (await send("--text", data=b"")).output == "0 records stored\n"


async def test_a_long_line_goes_in_pieces(send: Run, ingest: Ingest) -> None:
    text = b"".join(b"%07d " % n for n in range(300_000))
    result = await send(data=b"short\n" + text + b"\nlast\n")
    messages = [record["message"] for record in ingest.records]
    assert result.output == f"{len(messages)} records stored\n"
    assert messages[0], messages[-1] == ("short", "last")
    assert "".join(messages[1:-1]).encode() == text
    assert max(map(len, messages)) == 1 << 19


async def test_a_busy_daemon_is_asked_again(send: Run, ingest: Ingest) -> None:
    ingest.refusals = [(503, {"Retry-After": "1"}, b'{"detail": "the buffer is full"}'), (503, {}, b"")]
    result = await send(data=b"one\n")
    assert (result.exit_code, result.stdout) == (0, "1 record stored\n")
    first, second = result.stderr.splitlines()
    assert first == "the buffer is full; trying again in 1 s"
    assert second.endswith("cannot serve this now (503); trying again in 0.02 s")


async def test_after_a_while_it_gives_up_and_says_what_was_not_sent(
    send: Run, ingest: Ingest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_MOST_LINES", 10)
    path = tmp_path / "app.log"
    path.write_text("".join(f"line {n}\n" for n in range(25)))
    ingest.refusals = [None, (503, {"Retry-After": "5"}, b'{"detail": "full"}')]
    result = await send("--retry-for", "2", str(path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "logagg: 10 records stored; 15 lines not sent, from line 11 on: full\n"
    assert [record["message"] for record in ingest.records] == [f"line {n}" for n in range(10)]


async def test_a_refusal_for_good_is_not_tried_again(send: Run, ingest: Ingest) -> None:
    ingest.refusals = [(400, {}, b'{"detail": "no record in a body of 4 bytes"}')]
    result = await send("--json", data=b"abc\n")
    assert result.exit_code == 2
    assert result.stderr.endswith("not sent, from line 1 on: no record in a body of 4 bytes\n")
    ingest.refusals = [(200, {}, b'{"ok": true}')]
    assert "does not say how many records were accepted" in (await send(data=b"abc\n")).stderr


async def test_an_address_that_never_answered_is_given_up_at_once() -> None:
    result = CliRunner().invoke(cli, ["send", "--url", "http://127.0.0.1:1"], input=b"a\nb\n")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "logagg: 0 records stored; 2 lines not sent, from line 1 on: cannot reach http://127"
    )


class Drip(io.RawIOBase):
    """A pipe that gives what its writer wrote, write by write, and cannot be wound back."""

    def __init__(self, *writes: bytes) -> None:
        self._writes = list(writes)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._writes.pop(0) if self._writes else b""
        buffer[: len(data)] = data
        return len(data)


def test_a_live_stream_is_sent_as_it_comes() -> None:
    stream = io.BufferedReader(Drip(b"one\ntw", b"o", b"\nthree\n", b"four"))
    assert list(sending.batches(stream)) == [([b"one"], 1), ([b"two", b"three"], 2), ([b"four"], 1)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"\n", b"\r\n", b"x\ny\n"])))
def test_no_line_is_lost_or_made_up(writes: list[bytes]) -> None:
    writes = [data for data in writes if data]
    batches = list(sending.batches(io.BufferedReader(Drip(*writes))))
    expected = b"".join(writes).split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert sum(batch.ends for batch in batches) == len(expected)
    lines = [line.removesuffix(b"\r") for line in expected]
    assert [line for batch in batches for line in batch.lines if line] == [line for line in lines if line]


@settings(max_examples=60, deadline=None)
@given(st.text() | st.binary())
def test_a_line_comes_out_of_its_frame_as_it_went_in(line: str | bytes) -> None:
    data = line.encode("utf-8", "replace") if isinstance(line, str) else line
    found = json.loads(sending.frame(data, "text", {}).decode("utf-8", "surrogateescape"))
    assert found["message"].encode("utf-8", "surrogateescape") == data
