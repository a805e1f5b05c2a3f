"""The senders, each run as a process of its own: `python -m benchmarks.load KIND PORT ...`.

FILE holds what is sent, ready made, see forms.py. A history is made while it is sent, see `workload.Stream`. Prints one
JSON object as soon as all is sent: when it began by the monotonic clock, seconds, and failures and latencies in
milliseconds, or how many records were sent.
"""

import argparse
import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.workload import CYCLE, Stream, rows

#: A datagram sender that never pauses measures the kernel's queue, not the daemon.
UDP_BURST = 50
#: Records of a history in one write, when it has no set rate; else what a twentieth of a second brings.
PIECE = 2_000
#: More than any history has.
NO_END = 1 << 40
#: What each answer of a protocol has once.
MARKS = {"relp": b" rsp ", "forward": b"ack", "lumberjack": b"2A"}
#: Before each piece: the connection, answers to wait for, size.
_PIECE = struct.Struct(">IIQ")


def send_stream(port: int, path: Path) -> dict[str, object]:
    """All bytes over one connection, as fast as the receiver takes them."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as sock, path.open("rb") as file:
        sock.sendfile(file)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)  # the daemon closes once it has read all
    return {"began": began, "seconds": time.perf_counter() - began}


def send_datagrams(port: int, path: Path, rate: int) -> dict[str, object]:
    """A datagram a line, `rate` a second."""
    lines = path.read_bytes().split(b"\n")
    began = time.perf_counter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        for number, line in enumerate(lines):
            if number % UDP_BURST == 0:
                ahead = began + number / rate - time.perf_counter()
                if ahead > 0:
                    time.sleep(ahead)
            sock.send(line)
    return {"began": began, "seconds": time.perf_counter() - began}


class _Client(asyncio.Protocol):
    """One connection that sends the next piece when the answers to the last are whole."""

    def __init__(self, pieces: Iterator[tuple[bytes, int]], latencies: list[float], done: asyncio.Future[int]) -> None:
        """`pieces` are bytes and how many answers they get."""
        self._pieces = pieces
        self._latencies = latencies
        self._done = done
        self._answer = b""
        self._awaited = 0
        self._sent = 0.0
        self._failures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._whole():
            return
        self._latencies.append((time.perf_counter() - self._sent) * 1000)
        self._answer = b""
        self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if not self._done.done():
            # What is still to be sent, or was not answered, has failed.
            self._failures += sum(1 for _ in self._pieces) + bool(self._awaited)
            self._done.set_result(self._failures)

    def _whole(self) -> bool:
        """Tell whether all answers that are awaited have come; count those that say no."""
        head, found, body = self._answer.partition(b"\r\n\r\n")
        size = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        if not found or len(body) < int(size or b"0"):
            return False
        self._failures += not head.startswith(b"HTTP/1.1 20")
        return True

    def _next(self) -> None:
        piece, self._awaited = next(self._pieces, (b"", 0))
        if not piece:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(piece)  # type: ignore[attr-defined]  # create_connection gives a plain transport


class _Marked(_Client):
    """A sender of a protocol over TCP in which each answer has the same mark."""

    def __init__(self, mark: bytes, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._mark = mark

    def _whole(self) -> bool:
        return self._answer.count(self._mark) >= self._awaited


async def send_http(port: int, path: Path, connections: int) -> dict[str, object]:
    """Requests over so many connections."""
    pieces = requests(path.read_bytes())
    return await _send([partial(_Client, pieces) for _ in range(connections)], port)


async def send_windows(port: int, path: Path, mark: bytes) -> dict[str, object]:
    """Pieces over the connections that they name."""
    connections = windows(path.read_bytes())
    return await _send([partial(_Marked, mark, iter(pieces)) for pieces in connections.values()], port)


def windows(data: bytes) -> dict[int, list[tuple[bytes, int]]]:
    """Return what is sent over each connection: pieces, and how many answers each gets."""
    connections: dict[int, list[tuple[bytes, int]]] = {}
    at = 0
    while at < len(data):
        connection, answers, size = _PIECE.unpack_from(data, at)
        at += _PIECE.size + size
        connections.setdefault(connection, []).append((data[at - size : at], answers))
    return connections


async def _send(clients: list[Callable[..., _Client]], port: int) -> dict[str, object]:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    began = time.perf_counter()
    ends = []
    for client in clients:
        done: asyncio.Future[int] = loop.create_future()
        await loop.create_connection(partial(client, latencies, done), "127.0.0.1", port)
        ends.append(done)
    failures = sum(await asyncio.gather(*ends))
    return {"began": began, "seconds": time.perf_counter() - began, "failures": failures, "latencies": latencies}


def requests(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield requests; each gets one answer."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "big")
        yield data[at + 8 : at + 8 + size], 1
        at += 8 + size


def send_history(
    port: int, *, first: int, records: int, seconds: float, rate: int, cycle: int, start: float, step: float
) -> dict[str, object]:
    """Records `first` and following over one connection, until so many are sent or so many seconds are over.

    `rate` is in records a second, 0 as fast as the receiver takes them; `start` of 0 is now. The
    lines repeat after `cycle` records.
    """
    stream, sent = Stream(rows(cycle or CYCLE)), 0
    size = max(1, rate // 20) if rate else PIECE
    with socket.create_connection(("127.0.0.1", port)) as sock:
        began = time.perf_counter()
        for piece, count in stream.pieces(first, records or NO_END, start or time.time(), step, size):
            now = time.perf_counter()
            if seconds and now - began >= seconds:
                break
            if rate and (ahead := began + sent / rate - now) > 0:
                time.sleep(ahead)
            sock.sendall(piece)
            sent += count
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
    return {"began": began, "seconds": time.perf_counter() - began, "records": sent}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("stream", "datagrams", "http", *MARKS):
        command = kinds.add_parser(kind)
        command.add_argument("port", type=int)
        command.add_argument("path", type=Path)
        command.add_argument("number", type=int, help="connections of http; datagrams a second")
    history = kinds.add_parser("history")
    history.add_argument("port", type=int)
    for name in ("first", "records", "rate", "cycle"):
        history.add_argument(f"--{name}", type=int, default=0)
    for name in ("seconds", "start", "step"):
        history.add_argument(f"--{name}", type=float, default=0.0)
    given = vars(parser.parse_args())
    match kind := given.pop("kind"):
        case "stream":
            result = send_stream(given["port"], given["path"])
        case "datagrams":
            result = send_datagrams(given["port"], given["path"], given["number"])
        case "http":
            result = uvloop.run(send_http(given["port"], given["path"], given["number"]))
        case "history":
            result = send_history(**given)
        case _:
            result = uvloop.run(send_windows(given["port"], given["path"], MARKS[kind]))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
