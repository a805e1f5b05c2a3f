"""`logagg export`."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from logagg.cli.client import Client, Params, Unreachable
from logagg.cli.compression import COMPRESSIONS, Compression, Plain
from logagg.cli.options import Picking, examples, picking_options
from logagg.cli.postgres import sized
from logagg.cli.progress import Records
from logagg.cli.terminal import Failure, harmless_json, visible

if TYPE_CHECKING:
    import socket

#: Forms, and how their text is made harmless on a terminal; None is no text.
_FORMS: dict[str, Callable[[str], str] | None] = {
    "jsonl": harmless_json,
    "csv": lambda text: visible(text, block=True),
    "parquet": None,
}
_PIECE = 1 << 18

Write = Callable[[bytes], object]


@click.command(
    epilog=examples(
        "logagg export --since yesterday --until today -o yesterday.parquet",
        "logagg export 'service:billing level>=error' --format csv > errors.csv",
        "logagg export --since 2026-11-01 --until 2026-12-01 -o november.jsonl.zst",
        "logagg export --since 1h | jq -r .message",
        "duckdb -c \"select level, count(*) from 'yesterday.parquet' group by level\"",
    )
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(_FORMS)),
    help="The form of the records; without it, what FILE ends in, and jsonl where it ends in nothing.",
)
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write to FILE, which appears once it is whole; without it, to standard output. FILE.gz and FILE.zst, such as "
    "a.csv.gz, are compressed.",
)
@picking_options
def export(picking: Picking, query: Sequence[str], form: str | None, file: Path | None) -> None:
    """Write all matching records to a file.

    QUERY is in the query language, as for `logagg search`. Records come batch by batch, the oldest batch first, and
    by time within a batch, so the order of time is only nearly right.

    Exits with 0 when the export is whole, also when nothing matches, else with 2. Until then, FILE is FILE.part.
    """
    file = None if file == Path("-") else file
    form, compression = _named(file, form) if file else (form or "jsonl", Plain())
    terminal = file is None and sys.stdout.isatty()
    if terminal and _FORMS[form] is None:
        raise click.UsageError(f"{form} is not for a terminal: -o FILE, or > FILE")
    client = Client(picking.url, picking.token, picking.timeout)
    params = picking.params(query)
    parts = _stream(client, "/logs/export", params | {"format": form})
    progress = Records(form, shown=sys.stderr.isatty() and not terminal)
    progress.expect(partial(Client(picking.url, picking.token, picking.timeout).count, params))
    if file:
        _to_file(file, compression, parts, progress)
    else:
        write = _harmless(_FORMS[form]) if terminal else sys.stdout.buffer.write
        for part in parts:
            write(part)
            progress.add(part)
        sys.stdout.buffer.flush()
    progress.end()


def _named(file: Path, form: str | None) -> tuple[str, Compression]:
    """Return the form that the name of a file asks for, unless one is given, and its compression. Raises UsageError."""
    compression = COMPRESSIONS.get(file.suffix.lower(), Plain)
    inner = file if compression is Plain else file.with_suffix("")
    form = form or inner.suffix[1:].lower() or "jsonl"
    if form not in _FORMS:
        known = ", ".join(f".{form}" for form in _FORMS)
        raise click.UsageError(f"{inner.name} ends in none of {known}: --format says what to write")
    if form == "parquet" and inner != file:
        raise click.UsageError(f"parquet is compressed in itself: -o {inner}")
    return form, compression()


def _to_file(file: Path, compression: Compression, parts: Iterator[bytes], progress: Records) -> None:
    first = next(parts, b"")  # a refusal leaves no file
    unfinished = file.with_name(f"{file.name}.part")
    try:
        with unfinished.open("wb") as out:
            for part in chain([first], parts):
                out.write(compression.add(part))
                progress.add(part)
            out.write(compression.end())
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


def _stream(client: Client, path: str, params: Params) -> Iterator[bytes]:
    """GET a route, and yield its body as it comes. Raises Failure, and Broken when the end is missing."""
    from http.client import HTTPException

    got = 0
    with client.open(path, params) as (response, sock):
        _be_patient(sock)
        length = response.length
        try:
            while data := response.read1(_PIECE):
                got += len(data)
                yield data
            whole = length in (None, got)
        except (OSError, HTTPException, ValueError):
            whole = False
    if not whole:
        raise Broken(f"the export is not whole: the daemon broke it off after {sized(got)}; its log says why")


def _be_patient(sock: "socket.socket | None") -> None:
    """Wait for the next bytes as long as the daemon lives: it may look through a long time without a match."""
    import socket

    if sock is None:
        return
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # finds out when its machine is gone
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
