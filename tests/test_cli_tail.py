"""`logagg tail` and `search --follow`: events as bytes, a server that comes and goes, and how a tail ends."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.cli.events import Event, Reader

TAIL = [sys.executable, "-m", "logagg.cli", "tail", "--utc"]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def record(number: int) -> dict[str, Any]:
    return {
        "id": number, "timestamp": "2026-11-20T10:00:00Z", "level": "INFO", "service": "web",
        "message": f"m{number}\x1b[2J", "attributes": {},
    }  # fmt: skip


def event(number: int) -> bytes:
    return f"id: t{number}\ndata: {json.dumps(record(number))}\n\n".encode()


# --- Events ----------------------------------------------------------------------------------------------------------

STREAM = (
    b"retry: 250\n\n: alive\n\nid: a\ndata: one\n\n"
    b"event: problem\r\ndata:two\r\ndata:  three\r\nid\r\n\r\n"
    b"unknown: x\nid: b\n\nid: nul\0\ndata: \xff\n\ndata: unfinished\n"
)
EVENTS = [Event("message", "one"), Event("problem", "two\n three"), Event("message", "\ufffd")]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_however_their_bytes_come(cuts: list[int]) -> None:
    reader = Reader()
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(places)]
    assert [each for piece in pieces for each in reader.feed(piece)] == EVENTS
    assert (reader.last_id, reader.pause) == ("b", 0.25)


def test_an_event_cut_in_two_is_none_and_its_id_does_not_count() -> None:
    reader = Reader()
    assert reader.feed(b"id: a\ndata: x\n\nid: b\ndata: y\n") == [Event("message", "x")]
    reader.reset()
    assert reader.last_id == "a"
    assert reader.feed(b"data: z\n\n") == [Event("message", "z")]


# --- A server that comes and goes ------------------------------------------------------------------------------------


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


Talk = Callable[[socket.socket], None]


PATIENCE = 20


class Server:
    """Answers each connection but those for /healthz by the next of some talks; keeps the heads of the requests."""

    def __init__(self, *talks: Talk) -> None:
        self._left = list(talks)
        self.heads: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while self._left:
            connection, _ = self._listener.accept()
            connection.settimeout(PATIENCE)
            with connection, suppress(OSError):
                head = connection.recv(65536).decode()
                if head.startswith("GET /healthz"):
                    connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                    head = connection.recv(65536).decode()
                if not head:
                    continue
                self.heads.append(head)
                self._left.pop(0)(connection)

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()


def says(*numbers: int) -> Talk:
    def talk(connection: socket.socket) -> None:
        connection.sendall(HEAD + b"".join(chunk(event(number)) for number in numbers))

    return talk


def says_and_waits(*numbers: int) -> Talk:
    """Say it, and wait until the client has closed."""

    def talk(connection: socket.socket) -> None:
        says(*numbers)(connection)
        while connection.recv(65536):
            pass

    return talk


@contextmanager
def tail(server: Server, *args: str, command: list[str] = TAIL) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [*command, *args, "--url", server.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        watch = threading.Timer(PATIENCE, process.kill)  # a line that never comes is a failure, not a hang
        watch.start()
        try:
            yield process
        finally:
            watch.cancel()
            process.kill()


def lines(process: "subprocess.Popen[str]", count: int) -> list[str]:
    assert process.stdout
    return [process.stdout.readline() for _ in range(count)]


def interrupted(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    process.send_signal(signal.SIGINT)
    assert process.stdout and process.stderr  # noqa: PT018 -- for mypy
    out, err = process.stdout.read(), process.stderr.read()  # not communicate, which loses what readline has read ahead
    return process.wait(PATIENCE), out, err


def test_it_goes_on_where_it_was() -> None:
    with Server(says(1, 2), says(), says_and_waits(3)) as server, tail(server, "x", "-n", "2") as process:
        assert [line[-13:] for line in lines(process, 3)] == [f"web m{n}\\x1b[2J\n"[-13:] for n in (1, 2, 3)]
        code, out, err = interrupted(process)
    assert (code, out) == (130, "")
    assert err == "the connection was lost; trying again\nconnected again\n"
    asked = [head.split()[1] for head in server.heads]
    assert asked == ["/logs/tail?q=x&backlog=2", "/logs/tail?q=x", "/logs/tail?q=x"]
    assert ["Last-Event-ID: t2" in head for head in server.heads] == [False, True, True]


def test_json_is_whole_after_ctrl_c() -> None:
    with Server(says_and_waits(1, 2)) as server, tail(server, "-o", "json") as process:
        first = "".join(lines(process, 2))
        code, rest, err = interrupted(process)
    assert json.loads(first + rest) == [record(1), record(2)]
    assert (code, err) == (130, "")


def test_a_reader_that_leaves_ends_it_while_nothing_comes() -> None:
    with Server(says_and_waits(1)) as server, tail(server) as process:
        lines(process, 1)
        assert process.stdout and process.stderr  # noqa: PT018 -- for mypy
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(PATIENCE) == 0


def test_what_the_server_has_to_say() -> None:
    def talk(connection: socket.socket) -> None:
        problem = b'event: problem\ndata: {"detail": "the store is \\u001b[2Jaway"}\n\n'
        connection.sendall(HEAD + chunk(problem) + chunk(event(1)))
        connection.recv(1)

    with Server(talk) as server, tail(server, "-t", "{id}") as process:
        assert lines(process, 1) == ["1\n"]
        assert interrupted(process) == (130, "", "the server says: the store is \\x1b[2Jaway\n")


def answers(status: str, body: bytes, kind: str = "application/json") -> Talk:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return lambda connection: connection.sendall(head + body)


@pytest.mark.parametrize(
    ("talks", "message"),
    [
        ([answers("400 Bad", b'{"detail": "no"}')], "logagg: no\n"),
        ([answers("503 Busy", b'{"detail": "100 tails, at most"}')], "logagg: 100 tails, at most\n"),
        ([answers("200 OK", b"[]")], "logagg: /logs/tail did not answer with a stream of events; is it logagg?\n"),
        (
            [says(1), answers("401 No", b"{}")],
            "the connection was lost; trying again\nlogagg: {url} wants a token, or another one: "
            "--token or LOGAGG_TOKEN (401)\n",
        ),
        (
            [answers("200 OK", b"data: [1]\n\n", "text/event-stream")],
            "logagg: the server sent an event that is no record; is it logagg?\n",
        ),
    ],
)  # fmt: skip
def test_what_will_not_pass_ends_it(talks: list[Talk], message: str) -> None:
    with Server(*talks) as server, tail(server) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (2, message.replace("{url}", server.url))


def test_search_that_follows_is_a_tail_with_what_is_there() -> None:
    search = [sys.executable, "-m", "logagg.cli", "search", "--follow", "-o", "raw"]
    args = ["x", "--since", "2026-11-20T00:00Z", "-n", "7"]
    with Server(says_and_waits(1)) as server, tail(server, *args, command=search) as process:
        assert lines(process, 1) == ["m1\x1b[2J\n"]
        assert interrupted(process)[0] == 130
    assert server.heads[0].split()[1] == "/logs/tail?q=x&start_time=2026-11-20T00%3A00%3A00Z&backlog=7"
