"""`logagg export`, against the daemon, and against what breaks off."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from typing import TYPE_CHECKING

import orjson
import polars as pl
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from click.testing import Result

    from logagg.tests.daemons import RunningDaemon
    from logagg.tests.scripted import logagg
else:
    from scripted import logagg


async def export(daemon: RunningDaemon, *args: str) -> Result:
    url = f"http://{daemon.listening['http_listen']}"
    return await asyncio.to_thread(logagg, "export", "--url", url, *args)


async def ingest(daemon: RunningDaemon, count: int) -> None:
    body = b"\n".join(orjson.dumps({"message": f"m{n}", "n": n, "service": "web"}) for n in range(count))
    async with daemon.http.post("/ingest", data=body) as answer:
        assert answer.status == 200


async def test_an_export_is_what_a_search_prints(daemon: RunningDaemon, tmp_path: Path) -> None:
    await ingest(daemon, 20)
    url = f"http://{daemon.listening['http_listen']}"
    found = await asyncio.to_thread(logagg, "search", "--url", url, "-n", "0", "-o", "jsonl")
    done = await export(daemon)
    assert (done.exit_code, done.stderr) == (0, "")
    assert list(map(json.loads, done.stdout.splitlines())) == list(map(json.loads, found.stdout.splitlines()))
    some = await export(daemon, "n>=18", "--format", "csv", "--since", "1h", "--service", "web")
    assert [line.split(",")[9] for line in some.stdout.splitlines()] == ["message", "m18", "m19"]
    for name in ("all.parquet", "all.PARQUET"):
        assert (await export(daemon, "-o", str(tmp_path / name))).exit_code == 0
        assert pl.read_parquet(tmp_path / name).height == 20
    assert (await export(daemon, "nowhere", "-o", str(tmp_path / "none.jsonl"))).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.PARQUET", "all.parquet", "none.jsonl"]


async def test_a_refusal_leaves_no_file(daemon: RunningDaemon, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    done = await export(daemon, "(", "-o", str(file))
    assert done.exit_code == 2
    assert done.stderr.startswith("logagg: QUERY: ")
    missing = await export(daemon, "-o", str(tmp_path / "no" / "x.csv"))
    assert (missing.exit_code, "No such file or directory" in missing.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def answering() -> Iterator[Sequence[bytes]]:
    """A server that gives its one client, which asks for its health first, what is in the list, and hangs up."""
    answer: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(65536)
                client.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")  # GET /healthz
                client.recv(65536)
                client.sendall(answer[1])

        answer.append(f"http://127.0.0.1:{server.getsockname()[1]}".encode())
        thread = threading.Thread(target=serve)
        thread.start()
        yield answer
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"3\r\n{}\n\r\n",
        CHUNKED + b"3\r\n{}",
        CHUNKED,
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}\n",
    ],
)
def test_a_broken_export_looks_like_none(answer: bytes, answering: list[bytes], tmp_path: Path) -> None:
    answering.append(answer)
    file = tmp_path / "all.jsonl"
    file.write_text("from before\n")
    done = logagg("export", "--url", answering[0].decode(), "-o", str(file))
    assert done.exit_code == 2
    assert "the export is not whole" in done.stderr
    assert done.stderr.count("\n") == 1
    assert file.read_text() == "from before\n"


def test_an_end_that_cannot_be_told_is_refused(answering: list[bytes]) -> None:
    answering.append(b"HTTP/1.0 200 OK\r\n\r\n{}\n")
    done = logagg("export", "--url", answering[0].decode())
    assert (done.exit_code, done.stdout) == (2, "")
    assert "HTTP/1.0" in done.stderr


def test_progress_counts_records() -> None:
    from logagg.cli.progress import Records

    progress = Records("csv", shown=True)
    for part in (b'id,message\n1,"a\nb""\n', b'"\n2,"', b'\n"\n'):
        progress.add(part)
    assert str(progress).startswith("2 records, 28 bytes, ")
