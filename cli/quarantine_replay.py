"""`logagg quarantine replay`: try again what could not become a record."""

import hashlib
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from logagg.cli.options import Whole, examples
from logagg.cli.postgres import Place, check_schema, place_options, run
from logagg.cli.serving import settings_from
from logagg.cli.terminal import Failure, note

if TYPE_CHECKING:
    from logagg.protocols.columns import Columnar, Records
    from logagg.protocols.record import Decoded, Origin, Record
    from logagg.protocols.redaction import Redactor
    from logagg.sinks.quarantine import Entry
    from logagg.sinks.store import Store

#: An id of an entry, as an argument.
ID = Whole(1, (1 << 63) - 1)
#: Reasons why entries stay that are told, and IDs of each.
_REASONS, _FEW = 20, 5
#: What `--as` says is what a listener says of its bytes; `store` keeps records, not bytes of a sender.
_FORMS = {
    **dict.fromkeys(("http", "tcp", "gelf-udp", "gelf-tcp", "gelf-http", "elasticsearch", "lumberjack"), "json"),
    **dict.fromkeys(("syslog-udp", "syslog-tcp", "syslog-tls", "relp"), "syslog"),
    "forward": "msgpack",
    "store": "record",
}


class _Task(NamedTuple):
    """What to do with each entry."""

    #: None: as its transport has it.
    form: str | None
    dry_run: bool
    #: A line an entry.
    verbose: bool
    environment: str | None
    zone: tzinfo
    #: Redacts what is put in as what comes in.
    redactor: "Redactor | None"


class _Done(NamedTuple):
    """What became of the entries."""

    replayed: int
    records: int
    #: Why, by ID.
    stay: dict[int, str]
    missing: list[int]


@click.command(
    epilog=examples(
        "logagg quarantine replay --all --dry-run",
        "logagg quarantine replay 7 8 --as syslog",
        "logagg quarantine replay 9 --as text",
    )
)
@click.argument("numbers", metavar="[ID]...", type=ID, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that is in quarantine.")
@click.option(
    "--as",
    "form",
    type=click.Choice(["json", "msgpack", "syslog", "text"]),
    help="What the bytes are, whatever they came to.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would become of them.")
@click.option("--verbose", is_flag=True, help="Say of each entry what becomes of it.")
@place_options
@click.pass_context
def replay(
    ctx: click.Context,
    numbers: tuple[int, ...],
    everything: bool,
    form: str | None,
    dry_run: bool,
    verbose: bool,
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
    task = _Task(form, dry_run, verbose, settings.environment, settings.syslog_zone, settings.redactor)
    chosen = None if everything else list(dict.fromkeys(numbers))
    done = run(place, partial(_replay, place=place, chosen=chosen, task=task), create=False)
    if not verbose:
        for line in _reasons(done.stay):
            note(line)
    staying = len(done.stay)
    total = done.replayed + staying
    stays = f"; {staying:,} {'stays' if staying == 1 else 'stay'}" if staying else ""
    if total or done.missing:
        verb = "would replay" if dry_run else "replayed"
        click.echo(f"{verb} {done.replayed:,} of {total:,}, {_records(done.records)}{stays}")
    else:
        click.echo("nothing in quarantine")
    if done.missing:
        raise Failure(missing(done.missing))
    ctx.exit(1 if done.stay else 0)


def _reasons(stay: Mapping[int, str]) -> Iterator[str]:
    """Say why entries stay, those of most entries first. Reasons are alike when they differ in numbers only."""
    alike: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for number, reason in stay.items():
        alike[re.sub(r"\d+", "0", reason)][number] = reason
    most = sorted(alike.values(), key=len, reverse=True)
    for entries in most[:_REASONS]:
        names = ", ".join(map(str, list(entries)[:_FEW]))
        more = f" and {len(entries) - _FEW:,} more" if len(entries) > _FEW else ""
        first, *others = dict.fromkeys(entries.values())
        like = " (or with other numbers)" if others else ""
        yield f"{names}{more} {'stays' if len(entries) == 1 else 'stay'}: {first}{like}"
    if left := most[_REASONS:]:
        yield f"... and {sum(map(len, left)):,} more for other reasons: --verbose tells all"


async def _replay(connection: Any, *, place: Place, chosen: list[int] | None, task: _Task) -> _Done:
    from logagg.sinks import quarantine

    await check_schema(connection)
    numbers = await quarantine.numbers(connection) if chosen is None else chosen
    replayed = count = 0
    stay: dict[int, str] = {}
    absent: list[int] = []
    # A removal that a crash of the server takes back is found out by its key, too.
    await connection.execute("set synchronous_commit = off")
    async with _opened(place) as opened:
        for number in numbers:
            entry = await quarantine.get(connection, number)
            if entry is None:
                if chosen is not None:  # else another one has replayed it meanwhile
                    absent.append(number)
                continue
            records, trouble = _decoded(entry, task)
            if records and not task.dry_run:
                # Order matters: killed between the two, the key tells the next time that the records are in.
                stored, trouble = await _store(await opened(), entry, records)
                await quarantine.remove(connection, number)
            else:
                stored = len(records)
            if task.verbose:
                note(f"{number} stays: {trouble}" if trouble else f"{number}: {_records(stored)}")
            count += stored
            if trouble:
                stay[number] = trouble
            else:
                replayed += 1
    return _Done(replayed, count, stay, absent)


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


def missing(numbers: Sequence[int]) -> str:
    """Say that these are not there."""
    return f"not in quarantine: {', '.join(map(str, numbers))}; `logagg quarantine list` shows what is"
