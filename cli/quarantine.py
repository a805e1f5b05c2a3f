"""`logagg quarantine`: look at what could not become a record, and try it again."""

import codecs
import hashlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from logagg.cli.group import SuggestingGroup
from logagg.cli.options import examples
from logagg.cli.output import Csv, Form, JsonArray, JsonLines, local_time, table
from logagg.cli.postgres import Place, check_schema, place_of, place_options, run
from logagg.cli.serving import settings_from
from logagg.cli.terminal import Failure, Screen, note, visible, wants_colour

if TYPE_CHECKING:
    from logagg.protocols.columns import Columnar, Records
    from logagg.protocols.record import Decoded, Origin, Record
    from logagg.protocols.redaction import Redactor
    from logagg.sinks.quarantine import Entry, Listed
    from logagg.sinks.store import Store

_COLUMNS = ("id", "received_at", "transport", "source", "reason", "size", "excerpt")
#: Characters of an excerpt in a table.
_WIDEST = 60
_ID = click.IntRange(1, (1 << 63) - 1)
#: What `--as` says is what a listener says of its bytes; `store` keeps records, not bytes of a sender.
_FORMS = {
    **dict.fromkeys(("http", "tcp", "gelf-udp", "gelf-tcp", "gelf-http", "elasticsearch", "lumberjack"), "json"),
    **dict.fromkeys(("syslog-udp", "syslog-tcp", "syslog-tls", "relp"), "syslog"),
    "forward": "msgpack",
    "store": "record",
}


@click.group(cls=SuggestingGroup, epilog=examples("logagg quarantine list", "logagg quarantine replay --all"))
def quarantine() -> None:
    """Look at what could not become a record, and try it again."""


@quarantine.command(
    "list", epilog=examples("logagg quarantine list --transport tcp", "logagg quarantine list -n 0 -o jsonl")
)
@click.option("-n", "--limit", type=click.IntRange(0), default=100, help="Entries at most, the latest; 0: all.")
@click.option("--transport", metavar="NAME", help="Only of this listener, such as http or syslog-tcp; or store.")
@click.option("--reason", metavar="TEXT", help="Only with this text in the reason, in any case.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "jsonl", "json", "csv"]),
    default="text",
    help="The form of what is printed.",
)
@place_options
@click.pass_context
def list_(
    ctx: click.Context,
    limit: int,
    transport: str | None,
    reason: str | None,
    output: str,
    config: Path | None,
    database_url: str | None,
) -> None:
    """List what is in quarantine, the newest first.

    Exits with 0 when there was something, 1 when there was nothing, 2 on errors.
    """
    action = partial(_list, transport=transport, reason=reason, limit=limit + 1 if limit else None)
    found = run(place_of(config, database_url), action, create=False)
    shown = found[:limit] if limit else found
    with Screen(pager=True) as screen:
        screen.write(_listing(shown, output))
    if len(found) > len(shown):
        note(f"... there are older ones: --limit {limit * 10}, or 0 for all")
    if not found:
        note("nothing in quarantine" + (" matches" if transport or reason else ""))
        ctx.exit(1)


async def _list(connection: Any, *, transport: str | None, reason: str | None, limit: int | None) -> "list[Listed]":
    from logagg.sinks.quarantine import listed

    await check_schema(connection)
    return await listed(connection, transport=transport, why=reason, limit=limit)


def _listing(found: "Sequence[Listed]", output: str) -> str:
    rows = [
        {**each._asdict(), "received_at": _rfc3339(each.received_at), "excerpt": _escaped(each.head, cut=each.size)}
        for each in found
    ]
    if output == "text":
        for row in rows:
            row["received_at"] = local_time(row["received_at"], None)
            row["excerpt"] = row["excerpt"][:_WIDEST]
        return table(_COLUMNS, rows, colour=wants_colour("auto"), numbers=("id", "size")) if rows else ""
    forms: dict[str, Form] = {"jsonl": JsonLines(), "json": JsonArray()}
    form = forms.get(output) or Csv(_COLUMNS, terminal=sys.stdout.isatty())
    return form.head + form.page([{name: row[name] for name in _COLUMNS} for row in rows]) + form.tail()


@quarantine.command(
    epilog=examples("logagg quarantine show 7", "logagg quarantine show 7 --raw | xxd | head"),
)
@click.argument("number", metavar="ID", type=_ID)
@click.option("--raw", is_flag=True, help="Only the bytes, as they came.")
@place_options
def show(number: int, raw: bool, config: Path | None, database_url: str | None) -> None:
    r"""Show all of one entry.

    Bytes that are not UTF-8 are spelled out, as in \xff, and then a backslash is two.
    """
    entry = run(place_of(config, database_url), partial(_get, number=number), create=False)
    if raw:
        sys.stdout.buffer.write(entry.raw)
        sys.stdout.buffer.flush()
        return
    lines = {
        "id": entry.id,
        "received_at": _rfc3339(entry.received_at),
        "transport": entry.transport,
        "source": entry.source or "-",
        "reason": entry.reason,
        "size": len(entry.raw),
    }
    width = max(map(len, lines))
    text = "".join(f"{name:<{width}}  {visible(str(value))}\n" for name, value in lines.items())
    with Screen(pager=True) as screen:
        screen.write(f"{text}\n{visible(_escaped(entry.raw), block=True)}\n")


async def _get(connection: Any, *, number: int) -> "Entry":
    from logagg.sinks.quarantine import get

    await check_schema(connection)
    entry = await get(connection, number)
    if entry is None:
        raise Failure(_missing([number]))
    return entry


class _Task(NamedTuple):
    """What to do with each entry."""

    #: None: as its transport has it.
    form: str | None
    dry_run: bool
    environment: str | None
    zone: tzinfo
    #: Redacts what is put in as what comes in.
    redactor: "Redactor | None"


class _Done(NamedTuple):
    """What became of the entries."""

    replayed: int
    records: int
    stay: int
    missing: list[int]


@quarantine.command(
    epilog=examples(
        "logagg quarantine replay --all --dry-run",
        "logagg quarantine replay 7 8 --as syslog",
        "logagg quarantine replay 9 --as text",
    )
)
@click.argument("numbers", metavar="[ID]...", type=_ID, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that is in quarantine.")
@click.option(
    "--as",
    "form",
    type=click.Choice(["json", "msgpack", "syslog", "text"]),
    help="What the bytes are, whatever they came to.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would become of them.")
@place_options
@click.pass_context
def replay(
    ctx: click.Context,
    numbers: tuple[int, ...],
    everything: bool,
    form: str | None,
    dry_run: bool,
    config: Path | None,
    database_url: str | None,
) -> None:
    """Decode entries again, and store what is a record now.

    What is stored is taken out of quarantine, and keeps its time of receipt. Without --as, bytes are what the listener
    they came to takes; JSON may also be an array, or several objects. An entry that is records only in part stays as a
    whole. With --as text the bytes become the message of one record; what is not UTF-8 is replaced, and the bytes are
    kept.

    This may be stopped and run again: an entry is stored once.

    Exits with 0 when nothing stays of what was asked for, 1 when something does, 2 on errors.
    """
    if everything == bool(numbers):
        raise click.UsageError("name entries by their ID, or all of them by --all; not both")
    settings = settings_from(config)
    place = Place(database_url, None) if database_url else Place(settings.database_url, settings.data_dir)
    task = _Task(form, dry_run, settings.environment, settings.syslog_zone, settings.redactor)
    chosen = None if everything else list(dict.fromkeys(numbers))
    done = run(place, partial(_replay, place=place, chosen=chosen, task=task), create=False)
    total = done.replayed + done.stay
    stays = f"; {done.stay:,} {'stays' if done.stay == 1 else 'stay'}" if done.stay else ""
    if total or done.missing:
        verb = "would replay" if dry_run else "replayed"
        click.echo(f"{verb} {done.replayed:,} of {total:,}, {_records(done.records)}{stays}")
    else:
        click.echo("nothing in quarantine")
    if done.missing:
        raise Failure(_missing(done.missing))
    ctx.exit(1 if done.stay else 0)


async def _replay(connection: Any, *, place: Place, chosen: list[int] | None, task: _Task) -> _Done:
    from logagg.sinks import quarantine

    await check_schema(connection)
    numbers = await quarantine.numbers(connection) if chosen is None else chosen
    replayed = count = stay = 0
    missing: list[int] = []
    # A removal that a crash of the server takes back is found out by its key, too.
    await connection.execute("set synchronous_commit = off")
    async with _opened(place) as opened:
        for number in numbers:
            entry = await quarantine.get(connection, number)
            if entry is None:
                if chosen is not None:  # else another one has replayed it meanwhile
                    missing.append(number)
                continue
            records, trouble = _decoded(entry, task)
            if records and task.dry_run:
                note(f"{number}: {_records(len(records))}")
            elif records:
                # Order matters: killed between the two, the key tells the next time that the records are in.
                stored, trouble = await _store(await opened(), entry, records)
                await quarantine.remove(connection, number)
                count += stored
            if trouble:
                note(f"{number} stays: {trouble}")
            count += len(records) if task.dry_run else 0
            replayed, stay = replayed + (not trouble), stay + bool(trouble)
    return _Done(replayed, count, stay, missing)


@asynccontextmanager
async def _opened(place: Place) -> "AsyncIterator[Any]":
    """Give a function that returns the store: it is opened when it is asked for first, so never for a dry run."""
    from logagg.sinks.store import Store

    async with AsyncExitStack() as stack:
        store: Store | None = None

        async def get() -> Store:
            nonlocal store
            if store is None:
                store = await Store.open(place.url or place.embedded().url, connections=1)
                stack.push_async_callback(store.close)
            return store

        yield get


async def _store(store: "Store", entry: "Entry", records: "Records") -> tuple[int, str]:
    """Write the records of an entry; return how many are in, and why others are not, empty when all are.

    Records that PostgreSQL refuses are new entries then, written in the same transaction: the old one is done with.
    """
    written = await store.write(records, keys=[_key(entry)])
    why = written.quarantined[0].reason if written.quarantined else ""
    return written.stored, why and f"PostgreSQL refuses it, it has a new ID: {why}"


def _key(entry: "Entry") -> bytes:
    """Return the key of a replay: always the same for an entry, and another for one that has got its id later."""
    digest = hashlib.blake2b(f"quarantine {entry.id} {entry.received_at.isoformat()} ".encode(), digest_size=16)
    digest.update(entry.raw)
    return digest.digest()


def _decoded(entry: "Entry", task: _Task) -> "tuple[Records, str]":
    """Return the records that an entry is; or none, and why not."""
    from logagg.protocols.record import Origin
    from logagg.sinks.store import MOST

    form = task.form or _FORMS.get(entry.transport)
    if form is None:
        return [], f"bytes of {entry.transport}: --as says what they are"
    origin = Origin(entry.received_at.astimezone(UTC), entry.transport, entry.source, task.environment)
    try:
        decoded = _decode(entry.raw, form, origin, task.zone)
    except ValueError as error:
        return [], str(error)
    records, rejects = task.redactor.redact(decoded)[0] if task.redactor else decoded
    if rejects:
        return [], rejects[0].reason
    if not 0 < len(records) <= MOST:
        return [], f"{len(records):,} records in {len(entry.raw):,} bytes, at least 1, at most {MOST:,}"
    return records, ""


def _decode(raw: bytes, form: str, origin: "Origin", zone: tzinfo) -> "Decoded | Columnar":
    """Decode bytes. Raises ValueError for a record that is none."""
    from logagg.protocols.clean import to_text
    from logagg.protocols.fluent import decode_msgpack_body
    from logagg.protocols.json_lines import decode_body
    from logagg.protocols.mapping import from_object
    from logagg.protocols.record import Decoded
    from logagg.protocols.syslog import decode_syslog

    match form:
        case "json":
            return decode_body(raw, origin)
        case "syslog":
            return decode_syslog([raw], origin, zone)
        case "msgpack":
            return decode_msgpack_body(raw, origin)
        case "text":
            text, replaced = to_text(raw)
            return Decoded([from_object({"message": text}, origin, raw if replaced else None)], [])
        case _:
            return Decoded([_record(raw, origin)], [])


def _record(raw: bytes, origin: "Origin") -> "Record":
    """Read a record as `sinks.writing.poison` writes it; what cannot be used of it is replaced, and the bytes kept."""
    from logagg.protocols import jsontext
    from logagg.protocols.levels import DEFAULT_SEVERITY
    from logagg.protocols.record import Record
    from logagg.protocols.times import to_datetime

    unknown = "PostgreSQL refused the record, and these are the bytes it came as: --as says what they are"
    try:
        value = jsontext.loads(raw).value
    except ValueError:
        raise ValueError(unknown) from None
    if not isinstance(value, dict) or value.keys() != set(Record._fields):
        raise ValueError(unknown)
    texts = {name: text if isinstance(text, str) else None for name, text in value.items()}
    attributes = texts["attributes"]
    if attributes is not None:
        fields = jsontext.loads(attributes.encode()).value
        if not isinstance(fields, dict):
            raise ValueError(f"attributes are a JSON {jsontext.name_of(fields)}, expected an object")
        attributes = jsontext.dumps(fields)
    told: dict[str, Any] = {
        "timestamp": to_datetime(value["timestamp"]) or origin.now,
        "received_at": origin.now,
        "severity": _within(value["severity"], 7, DEFAULT_SEVERITY),
        "facility": _within(value["facility"], 127, None),
        "message": texts["message"] or "",
        "attributes": attributes,
        "raw": raw,
    }
    return Record._make((texts | told)[name] for name in Record._fields)


def _within(value: Any, most: int, default: int | None) -> int | None:
    return value if type(value) is int and 0 <= value <= most else default


def _records(count: int) -> str:
    return "1 record" if count == 1 else f"{count:,} records"


def _missing(numbers: Sequence[int]) -> str:
    return f"not in quarantine: {', '.join(map(str, numbers))}; `logagg quarantine list` shows what is"


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _escaped(data: bytes, *, cut: int = 0) -> str:
    """Return UTF-8 as it is, else with all that is none spelled out. Of `cut` bytes these may be the first ones."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=cut <= len(data))
    except UnicodeDecodeError:
        return data.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
