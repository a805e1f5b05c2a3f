"""`logagg export`."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logagg.cli.client import Client, Params, Unreachable
from logagg.cli.options import Picking, examples, picking_options
from logagg.cli.postgres import sized
from logagg.cli.terminal import Failure, harmless_json, note, visible

if TYPE_CHECKING:
    from http.client import HTTPResponse

#: Forms, and how their text is made harmless on a terminal; None is no text.
_FORMS: dict[str, Callable[[str], str] | None] = {
    "jsonl": harmless_json,
    "csv": lambda text: visible(text, block=True),
    "parquet": None,
}
_PIECE = 1 << 18
#: Seconds between two lines of progress.
_PACE = 0.5

Write = Callable[[bytes], object]


@click.command(
    epilog=examples(
        "logagg export --since yesterday --until today -o yesterday.parquet",
        "logagg export 'service:billing level>=error' --format csv > errors.csv",
        "logagg export --since 1h | jq -r .message",
        "duckdb -c \"select level, count(*) from 'yesterday.parquet' group by level\"",
    )
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(_FORMS)),
    help="The form of the records; without it, what FILE ends in, else jsonl.",
)
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write to FILE, which appears once it is whole; without it, to standard output.",
)
@picking_options
def export(picking: Picking, query: Sequence[str], form: str | None, file: Path | None) -> None:
    """Write all matching records to a file.

    QUERY is in the query language, as for `logagg search`. Records come batch by batch, the oldest batch first, and
    by time within a batch, so the order of time is only nearly right.

    Exits with 0 when the export is whole, also when nothing matches, else with 2. Until then, FILE is FILE.part.
    """
    file = None if file == Path("-") else file
    form = form or (file.suffix[1:].lower() if file and file.suffix[1:].lower() in _FORMS else "jsonl")
    terminal = file is None and sys.stdout.isatty()
    if terminal and _FORMS[form] is None:
        raise click.UsageError(f"{form} is not for a terminal: -o FILE, or > FILE")
    client = _Exports(picking.url, picking.token, picking.timeout)
    parts = client.stream("/logs/export", picking.params(query) | {"format": form})
    progress = _Progress(form, shown=sys.stderr.isatty() and not terminal)
    if file:
        _to_file(file, parts, progress)
    else:
        write = _harmless(_FORMS[form]) if terminal else sys.stdout.buffer.write
        for part in parts:
            write(part)
            progress.add(part)
        sys.stdout.buffer.flush()
    progress.end()


def _to_file(file: Path, parts: Iterator[bytes], progress: "_Progress") -> None:
    first = next(parts, b"")  # a refusal leaves no file
    unfinished = file.with_name(f"{file.name}.part")
    try:
        with unfinished.open("wb") as out:
            out.write(first)
            progress.add(first)
            for part in parts:
                out.write(part)
                progress.add(part)
        unfinished.replace(file)
    except Broken as error:
        raise Failure(f"{error.format_message()}; what came stands in {unfinished}") from None
    except OSError as error:
        raise Failure(f"{error.filename or unfinished}: {error.strerror or error}") from None


def _harmless(spell: Callable[[str], str] | None) -> Write:
    """Return what writes text to a terminal so that nothing in it acts there."""
    from codecs import getincrementaldecoder

    decoder = getincrementaldecoder("utf-8")("replace")
    return lambda data: sys.stdout.write(spell(decoder.decode(data)) if spell else "")


class Broken(Unreachable):
    """The answer began, and did not end."""


class _Exports(Client):
    """A client for an answer of any length."""

    def stream(self, path: str, params: Params) -> Iterator[bytes]:
        """GET a route, and yield its body as it comes. Raises Failure, and Broken when the end is missing."""
        from http.client import HTTPException
        from urllib.parse import urlencode

        began, got = False, 0
        connection = self._connect()
        try:
            connection.request("GET", f"{self._prefix}{path}?{urlencode(params)}", headers=self._headers)
            sock, response = connection.sock, connection.getresponse()
            if response.status != 200:
                raise self._refused(path, response)
            if not response.chunked and response.length is None:
                raise Failure(f"{self._url} answers in HTTP/1.0 (a proxy?): the end could not be told from a break")
            _be_patient(sock)
            began, length = True, response.length
            while data := response.read1(_PIECE):
                got += len(data)
                yield data
            if length not in (None, got):
                raise self._broken(got)
        except (OSError, HTTPException, ValueError) as error:
            raise (self._broken(got) if began else Unreachable(self._unreachable(error))) from None
        finally:
            connection.close()

    def _broken(self, got: int) -> Broken:
        return Broken(f"the export is not whole: {self._url} broke it off after {sized(got)}; its log says why")

    def _refused(self, path: str, response: "HTTPResponse") -> Failure:
        import json

        try:
            answer = json.loads(response.read())
        except ValueError:
            answer = None
        return self._refusal(path, response, answer)


def _be_patient(sock: Any) -> None:
    """Wait for the next bytes as long as the daemon lives: it may look through a long time without a match."""
    import socket

    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # finds out when its machine is gone
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)


class _Progress:
    """What has come so far, on standard error when that is a terminal."""

    def __init__(self, form: str, *, shown: bool) -> None:
        self._form = form
        self._shown = shown
        self._began = self._said = time.monotonic()
        self._bytes = 0
        self._lines = 0
        self._quoted = False

    def add(self, part: bytes) -> None:
        """Count bytes and records."""
        if not self._shown:
            return
        self._bytes += len(part)
        if self._form == "csv":
            self._count_quoted(part)
        else:
            self._lines += part.count(b"\n")
        if time.monotonic() - self._said >= _PACE:
            self._said = time.monotonic()
            sys.stderr.write(f"\r{self._text()}\x1b[K")
            sys.stderr.flush()

    def _count_quoted(self, part: bytes) -> None:
        """Count the line feeds that end a line: those behind an even number of quotes."""
        for place, piece in enumerate(part.split(b'"')):
            self._quoted ^= place > 0
            self._lines += 0 if self._quoted else piece.count(b"\n")

    def _text(self) -> str:
        records = self._lines - (self._form == "csv")
        counted = "" if self._form == "parquet" else f"{max(records, 0):,} records, "
        seconds = time.monotonic() - self._began
        return f"{counted}{sized(self._bytes)}, {sized(self._bytes / max(seconds, 0.001))}/s"

    def end(self) -> None:
        """Say how much it was."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            note(self._text())
