"""The senders, each run as a process of its own: `python -m benchmarks.load KIND PORT FILE [CONNECTIONS]`.

FILE holds what is sent, ready made; for http each request is preceded by its length as eight bytes. Prints one JSON
object: seconds, failures and latencies in milliseconds.
"""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

#: A datagram sender that never pauses measures the kernel's queue, not the daemon.
UDP_BURST = 50


def send_stream(port: int, path: Path) -> dict[str, object]:
    """All bytes over one connection, as fast as the receiver takes them."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as sock, path.open("rb") as file:
        sock.sendfile(file)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)  # the daemon closes once it has read all
    return {"seconds": time.perf_counter() - began}


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
    return {"seconds": time.perf_counter() - began}


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
    return {"seconds": time.perf_counter() - began, "failures": failures, "latencies": latencies}


def _requests(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "big")
        yield data[at + 8 : at + 8 + size]
        at += 8 + size


def main() -> None:
    kind, port, path, number = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    if kind == "stream":
        result = send_stream(port, path)
    elif kind == "datagrams":
        result = send_datagrams(port, path, number)
    else:
        result = uvloop.run(send_http(port, path, number))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
