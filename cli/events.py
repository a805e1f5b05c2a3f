"""Server-sent events (the HTML standard, section 9.2), and a stream of them that survives its connection.

Reading is apart from the network: bytes in, events out. After a lost connection the stream asks again with the id of
the last event, so that the server goes on behind it: nothing is lost and nothing comes twice.
"""

import select
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from logagg.cli.client import Busy, Client, Params, Unreachable
from logagg.cli.terminal import Failure, note

if TYPE_CHECKING:
    from http.client import HTTPResponse

_PIECE = 1 << 18
#: Bytes of a line; a record has fewer.
_LONGEST = 1 << 26
#: Seconds without a byte after which a connection is a dead one; the server says something every ten.
_SILENCE = 35.0
#: Seconds between two attempts: at first, unless the server says otherwise, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0


class Event(NamedTuple):
    """One event: its name, `message` unless the server gave another, and its data."""

    name: str
    data: str


class Reader:
    """Makes events of bytes. Fields that the standard does not know are skipped, as it asks."""

    def __init__(self) -> None:
        #: The id to go on behind, for a server that is asked again; and the pause before that, in seconds.
        self.last_id = ""
        self.pause = _FIRST_PAUSE
        self.reset()

    def reset(self) -> None:
        """Forget what an ended connection left unfinished."""
        self._held = b""
        self._clear()

    def _clear(self) -> None:
        self._name, self._data, self._id = "", list[str](), self.last_id

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes; return the events that are whole now."""
        *lines, self._held = (self._held + data).replace(b"\r\n", b"\n").split(b"\n")
        if len(self._held) > _LONGEST:
            raise Failure(f"the server sends a line of more than {_LONGEST >> 20} MiB; is it logagg?")
        events = []
        for line in lines:
            if line:
                self._field(line)
                continue
            self.last_id = self._id
            if self._data:
                events.append(Event(self._name or "message", "\n".join(self._data)))
            self._clear()
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._name = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.pause = min(int(value) / 1000, _LONGEST_PAUSE)
            case _:
                pass  # a comment, which keeps the connection alive, or what a later standard knows


def follow(client: Client, path: str, params: Params) -> Iterator[list[Event]]:
    """Yield the events of a stream, as many as came at once, until nobody reads standard output any more.

    The first connection must succeed; a lost one is tried again for ever, with a line on standard error. Raises Failure
    for what will not pass, and BrokenPipeError when the reader of standard output is gone, also while nothing comes.
    """
    reader, gone = Reader(), _Gone()
    pause, again = 0.0, False
    while True:
        try:
            for data in _connected(client, path, params, reader, gone):
                if again and pause:
                    note("connected again")
                pause, again = 0.0, True
                if events := reader.feed(data):
                    yield events
            said = "the connection was lost"
        except (Busy, Unreachable) as problem:
            if not again:
                raise
            said = problem.message
        if not pause:
            note(f"{said}; trying again")
        pause = min(pause * 2 or reader.pause, _LONGEST_PAUSE)
        gone.wait(pause)


def _connected(client: Client, path: str, params: Params, reader: Reader, gone: "_Gone") -> Iterator[bytes]:
    """Yield what one connection gives."""
    reader.reset()
    headers = {"Accept": "text/event-stream"}
    if reader.last_id:
        headers["Last-Event-ID"] = reader.last_id
        params = {name: value for name, value in params.items() if name != "backlog"}
    with client.open(path, params, headers) as (response, sock):
        if "text/event-stream" not in response.getheader("Content-Type", ""):
            raise Failure(f"{path} did not answer with a stream of events; is it logagg?")
        yield from _pieces(response, sock, gone)


def _pieces(response: "HTTPResponse", sock: socket.socket | None, gone: "_Gone") -> Iterator[bytes]:
    """Yield what comes until the connection ends, however it does."""
    from http.client import HTTPException

    if sock is not None:
        sock.settimeout(_SILENCE)
    with gone.cuts(sock):
        try:
            while data := response.read1(_PIECE):
                yield data
        except (OSError, HTTPException, ValueError):
            return


class _Gone:
    """Watches standard output, so that a reader who has left is noticed while nothing is written."""

    def __init__(self) -> None:
        self._left = threading.Event()
        self._sock: socket.socket | None = None
        try:
            number = sys.stdout.fileno()
        except (OSError, ValueError):
            return  # a standard output that is no file
        threading.Thread(target=self._watch, args=(number,), daemon=True).start()

    def _watch(self, number: int) -> None:
        poll = select.poll()
        poll.register(number, 0)  # errors are told unasked
        poll.poll()
        self._left.set()
        if (sock := self._sock) is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # ends the read that waits

    @contextmanager
    def cuts(self, sock: socket.socket | None) -> Iterator[None]:
        """Have a socket shut down when the reader leaves. Raises BrokenPipeError then."""
        self._sock = sock
        self.wait(0)
        try:
            yield
        finally:
            self._sock = None
        self.wait(0)

    def wait(self, seconds: float) -> None:
        """Wait; raises BrokenPipeError as soon as the reader is gone."""
        if self._left.wait(seconds):
            raise BrokenPipeError
