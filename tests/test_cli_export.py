"""`logagg export`, against the daemon, and against what breaks off."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import threading
from typing import TYPE_CHECKING

import cramjam
import orjson
import polars as pl
import pytest

from logagg.cli.compression import Gzip, Zstd

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


async def test_the_name_of_a_file_says_its_form_and_compression(daemon: RunningDaemon, tmp_path: Path) -> None:
    await ingest(daemon, 2000)
    plain = {form: (await export(daemon, "--format", form)).stdout for form in ("jsonl", "csv")}
    for name, unpack, options, form in (
        ("a.csv.gz", gzip.decompress, [], "csv"),
        ("a.jsonl.ZST", cramjam.zstd.decompress, [], "jsonl"),
        ("all", bytes, [], "jsonl"),
        ("all.gz", gzip.decompress, [], "jsonl"),
        ("a.xyz", bytes, ["--format", "csv"], "csv"),
        ("a.xyz.zst", cramjam.zstd.decompress, ["--format", "csv"], "csv"),
    ):
        assert (await export(daemon, "-o", str(tmp_path / name), *options)).exit_code == 0
        assert bytes(unpack((tmp_path / name).read_bytes())).decode() == plain[form], name
        (tmp_path / name).unlink()
    for name, said in (
        ("a.xyz", "a.xyz ends in none of .jsonl, .csv, .parquet: --format says what to write"),
        ("a.csv.xz", "a.csv.xz ends in none of"),
        ("a.xyz.gz", "a.xyz ends in none of"),
        ("a.parquet.gz", "parquet is compressed in itself: -o a.parquet"),
    ):
        refused = await export(daemon, "-o", name)
        assert (refused.exit_code, refused.stderr.startswith(f"logagg: {said}")) == (2, True), refused.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_packed_piece_by_piece_is_whole() -> None:
    pieces = [os.urandom(100_000) for _ in range(40)]  # which no compression can make shorter
    for compression, unpack in ((Gzip(), gzip.decompress), (Zstd(), cramjam.zstd.decompress)):
        packed = [*map(compression.add, pieces), compression.end()]
        assert sum(map(bool, packed)) > 2  # what is ready is not held
        assert bytes(unpack(b"".join(packed))) == b"".join(pieces)


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
