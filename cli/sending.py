"""`logagg send`: lines of a file or of standard input, as records, to `POST /ingest`."""

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import click

from logagg.cli.client import Busy, Client, Unreachable
from logagg.cli.options import Level, examples, server_options
from logagg.cli.progress import Bar
from logagg.cli.terminal import Failure, note

#: Bytes read at once: a pipe gives what it has, so a live stream is sent as it comes.
_READ = 1 << 20
#: Longer lines are sent in pieces of this size: the daemon cuts at its `max_frame` of the same size.
_LONGEST = 1 << 19
#: Lines of one request.
_MOST_LINES = 5000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0

_LEVEL = Level()


class Batch(NamedTuple):
    """Lines read together, without their ends, and how many ends of lines there were among them."""

    lines: list[bytes]
    ends: int


@click.command(
    epilog=examples(
        "logagg send app.log --service app --level info",
        "./backup.sh 2>&1 | logagg send --service backup",
        "docker logs web | logagg send --service web",
        "tail -F app.log | logagg send --service app",
        "logagg send records.jsonl --json --url http://other:8000",
    )
)
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--service", help="Service of records that name none.")
@click.option("--host", help="Host of records that name none.")
@click.option("--level", type=_LEVEL, metavar="LEVEL", help="Level of records that name none; the daemon's: INFO.")
@click.option("--environment", help="Environment of records that name none.")
@click.option(
    "--text", "form", flag_value="text", help="Every line is a message, also one that looks like a JSON object."
)
@click.option("--json", "form", flag_value="json", help="Every line is a JSON object, and is sent as it stands.")
@click.option(
    "--retry-for", type=click.FloatRange(0), default=60, metavar="SECONDS",
    help="How long to try again when the daemon is busy or has gone away; one that never answered is not waited for.",
)  # fmt: skip
@server_options
@click.pass_context
def send(
    ctx: click.Context,
    file: IO[bytes],
    form: str | None,
    retry_for: float,
    url: str,
    token: str | None,
    timeout: float,
    service: str | None,
    host: str | None,
    level: str | None,
    environment: str | None,
) -> None:
    """Send lines as records.

    Sends each line of FILE, or of standard input, and says how many were stored.

    A line that is a JSON object is a record with its own fields; any other line is the message of one. Empty lines are
    left out. The options --service, --host, --level and --environment fill in what a record does not have itself.

    A batch counts as stored when PostgreSQL has committed it or, while PostgreSQL is away, when it is on disk in the
    daemon's journal. When the daemon is busy or goes away the batch is sent again; if the connection broke after it was
    stored, it is then there twice. Exits with 2 when lines were not sent, and says which was the first of them.
    """
    fields = {"service": service, "host": host, "level": level, "environment": environment}
    options = {name: value for name, value in fields.items() if value is not None}
    if form == "json" and options:
        raise click.UsageError("--json sends lines as they stand: leave out --service, --host, --level, --environment")
    start = file.tell() if file.seekable() else None
    bar = Bar(shown=sys.stderr.isatty() and not file.isatty())
    sender = Sender(ctx.with_resource(Client(url, token, timeout)), retry_for, bar)
    size = _size(file) if start is not None else None
    try:
        for batch in batches(file):
            sender.send([frame(line, form, options) for line in batch.lines if line.strip()])
            sender.lines += batch.ends
            bar.draw(file.tell() - (start or 0) if size else 0, size, f"{sender.stored:,} records")
        bar.clear()
    except KeyboardInterrupt:
        bar.clear()
        note(f"{sender}; stopped at line {sender.lines + 1}")
        ctx.exit(130)
    except Failure as failure:
        bar.clear()
        raise Failure(f"{sender}; {_unsent(file, start, sender.lines)}: {failure.message}") from None
    click.echo(str(sender))


class Sender:
    """Sends batches, each until it is stored, and counts."""

    def __init__(self, client: Client, retry_for: float, bar: Bar) -> None:
        self._client = client
        self._bar = bar
        self._retry_for = retry_for
        self._met = False
        #: Lines, records stored, and records put into quarantine, so far.
        self.lines = self.stored = self.quarantined = 0

    def __str__(self) -> str:
        refused = f", {self.quarantined} put into quarantine" if self.quarantined else ""
        return f"{self.stored} {'record' if self.stored == 1 else 'records'} stored{refused}"

    def send(self, frames: list[bytes]) -> None:
        """Send one batch.

        Tries again while the daemon is busy or away, but only one that has answered before: an address that never
        answered is a wrong one. Raises Failure when that takes longer than `retry_for` seconds, or cannot help.
        """
        if not frames:
            return
        deadline, pause = time.monotonic() + self._retry_for, _FIRST_PAUSE
        while True:
            try:
                answer = self._client.post("/ingest", b"\n".join(frames) + b"\n", "application/x-ndjson")
                break
            except (Busy, Unreachable) as problem:
                self._met = self._met or isinstance(problem, Busy)
                wait = problem.retry_after if isinstance(problem, Busy) and problem.retry_after else pause
                if not self._met or time.monotonic() + wait > deadline:
                    raise
                self._bar.clear()
                note(f"{problem.message}; trying again in {wait:g} s")
                time.sleep(wait)
                pause = min(pause * 2, _LONGEST_PAUSE)
        self._met = True
        self._count(answer)

    def _count(self, answer: Any) -> None:
        if not isinstance(answer, dict) or not isinstance(answer.get("accepted"), int):
            raise Failure("the answer to /ingest does not say how many records were accepted; is it logagg?")
        self.stored += answer["accepted"]
        self.quarantined += int(answer.get("quarantined") or 0)


def batches(file: IO[bytes]) -> Iterator[Batch]:
    """Cut a file into lines and gather what each read gave, at most some thousands at once.

    A line that is too long comes in pieces; the last needs no end.
    """
    held: list[bytes] = []
    size = 0
    for chunk in iter(lambda: _read(file), b""):
        held.append(chunk)
        size += len(chunk)
        if b"\n" not in chunk and size <= _LONGEST:
            continue
        *lines, rest = b"".join(held).split(b"\n")
        ends = len(lines)
        while len(rest) > _LONGEST:
            lines.append(rest[:_LONGEST])
            rest = rest[_LONGEST:]
        held, size = [rest], len(rest)
        yield from _portions(lines, ends)
    if size:
        yield from _portions([b"".join(held)], 1)


def _read(file: IO[bytes]) -> bytes:
    """Read what is there, without waiting for more."""
    data: bytes = getattr(file, "read1", file.read)(_READ)
    return data


def _portions(lines: list[bytes], ends: int) -> Iterator[Batch]:
    """Yield lines in portions that make a handy request; the first `ends` of them were ended."""
    for at in range(0, len(lines), _MOST_LINES):
        portion = lines[at : at + _MOST_LINES]
        pieces = [line[i : i + _LONGEST].removesuffix(b"\r") for line in portion for i in range(0, len(line), _LONGEST)]
        yield Batch(pieces, max(0, min(ends - at, len(portion))))


def frame(line: bytes, form: str | None, options: dict[str, str]) -> bytes:
    """Make a line into a JSON record; `form` is `text`, `json`, or None to tell by the line itself.

    Bytes that are not UTF-8 stay as they are: the daemon replaces them, marks the record and keeps them.
    """
    if form == "json":
        return line
    found = _json_object(line) if form is None else None
    if found is not None:
        return _filled(line.strip(), found, options)
    record = {"message": line.decode("utf-8", "surrogateescape"), **options}
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _json_object(line: bytes) -> dict[str, Any] | None:
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _filled(line: bytes, found: dict[str, Any], options: dict[str, str]) -> bytes:
    """Put the options that the object lacks before its first field; its own text is not touched."""
    missing = {name: value for name, value in options.items() if name not in found}
    if not missing:
        return line
    fields = json.dumps(missing, ensure_ascii=False)[:-1].encode("utf-8", "surrogateescape")
    return fields + (b", " if found else b"") + line[1:].lstrip()


def _size(file: IO[bytes]) -> int | None:
    """Return how many bytes are left to read of a regular file; None for what has no size."""
    try:
        return os.fstat(file.fileno()).st_size - file.tell() or None
    except OSError:
        return None


def _unsent(file: IO[bytes], start: int | None, sent: int) -> str:
    """Say which lines were not sent; a pipe is not waited for."""
    if start is None:
        return f"line {sent + 1} and all after it not sent"
    file.seek(start)
    total = sum(batch.ends for batch in batches(file))
    return f"{total - sent} lines not sent, from line {sent + 1} on"
