"""The senders, each run as a process of its own: `python -m benchmarks.load KIND PORT ...`.

FILE holds what is sent, ready made; for http each request is preceded by its length as eight bytes. A history is made
while it is sent, see `workload.Stream`. Prints one JSON object as soon as all is sent: when it began by the monotonic
clock, seconds, and failures and latencies in milliseconds, or how many records were sent.
"""

import argparse
import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from benchmarks.workload import CYCLE, Stream, rows

#: A datagram sender that never pauses measures the kernel's queue, not the daemon.
UDP_BURST = 50
#: Records of a history in one write, when it has no set rate; else what a twentieth of a second brings.
PIECE = 2_000
#: More than any history has.
NO_END = 1 << 40


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
    """One HTTP connection that sends the next request when the answer to the last is whole."""

    def __init__(self, requests: Iterator[bytes], latencies: list[float], done: asyncio.Future[int]) -> None:
        self._requests = requests
        self._latencies = latencies
        self._done = done
        self._answer = b""
        self._sent = 0.0
        self._failures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            return
        self._latencies.append((time.perf_counter() - self._sent) * 1000)
        self._failures += not head.startswith(b"HTTP/1.1 200")
        self._answer = b""
        self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(self._failures)

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)  # type: ignore[attr-defined]  # create_connection gives a plain transport


async def send_http(port: int, path: Path, connections: int) -> dict[str, object]:
    requests = _requests(path.read_bytes())
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    began = time.perf_counter()
    ends = []
    for _ in range(connections):
        done: asyncio.Future[int] = loop.create_future()
        await loop.create_connection(lambda done=done: _Client(requests, latencies, done), "127.0.0.1", port)  # type: ignore[misc]
        ends.append(done)
    failures = sum(await asyncio.gather(*ends))
    return {"began": began, "seconds": time.perf_counter() - began, "failures": failures, "latencies": latencies}


def _requests(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "big")
        yield data[at + 8 : at + 8 + size]
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
    for kind in ("stream", "datagrams", "http"):
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
    match given.pop("kind"):
        case "stream":
            result = send_stream(given["port"], given["path"])
        case "datagrams":
            result = send_datagrams(given["port"], given["path"], given["number"])
        case "http":
            result = uvloop.run(send_http(given["port"], given["path"], given["number"]))
        case _:
            result = send_history(**given)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
