"""`logagg db pack`, `unpack` and `prune`: move records between their forms, and let go of old ones."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click

from logagg.cli.database_sql import duration
from logagg.cli.options import examples
from logagg.cli.output import counted
from logagg.cli.postgres import check_schema, place_of, place_options, run, sized
from logagg.cli.terminal import Failure, note
from logagg.cli.timespec import parse_time


def _span(context: click.Context, param: click.Parameter, value: str) -> timedelta:
    """Read a duration such as 30d, more than nothing."""
    span = duration(context, param, value)
    if not span:
        raise click.BadParameter(f"{value!r} is no time at all", param=param)
    return span


def _span_or_none(context: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    return None if value is None else _span(context, param, value)


def _size(context: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read a size such as 200GB or 64MiB."""
    if value is None:
        return None
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return TypeAdapter(ByteSize).validate_python(value)
    except ValidationError:
        raise click.BadParameter(f"{value!r} is no size; expected one such as 200GB or 64MiB", param=param) from None


@click.command(epilog=examples("logagg db pack", "logagg db pack --all"))
@place_options
@click.option("--all", "anybody", is_flag=True, help="Also those that a running daemon is about to pack.")
def pack(config: Path | None, database_url: str | None, anybody: bool) -> None:
    """Pack batches that are closed and not packed.

    The daemons do this by themselves, a few batches a minute. A batch whose rows are not as many as were written is
    said, and stays as rows. Exits with 2 when there was one.
    """
    run(place_of(config, database_url), partial(_pack, anybody=anybody), create=False)


async def _pack(connection: Any, *, anybody: bool) -> None:
    from logagg.sinks import owners, upkeep
    from logagg.sinks.errors import StoreError

    await check_schema(connection)
    await owners.adopt_orphans(connection, 0)
    failed: list[int] = []
    batches = records = size = 0
    while (number := await upkeep.waiting(connection, failed, anybody=anybody)) is not None:
        try:
            if not await upkeep.pack_from_rows(connection, number):
                continue
        except StoreError as error:
            failed.append(number)
            note(str(error))
            continue
        count, of_it = await connection.fetchrow(upkeep.SIZE, number)
        note(f"batch {number}: {counted(count, 'record')}, {sized(of_it)}")
        batches, records, size = batches + 1, records + count, size + of_it
    each = f", {size / records:.3g} bytes a record" if records else ""
    click.echo(f"packed {counted(batches, 'batch', 'batches')}, {counted(records, 'record')}{each}")
    left = (await upkeep.lag(connection)).batches - len(failed)
    if left > 0:
        note(f"{counted(left, 'batch is', 'batches are')} left to the daemons that run; --all packs them, too")
    if is_open := await connection.fetchval("select count(*) from batches where closed_at is null"):
        still = counted(is_open, "batch is", "batches are")
        note(f"{still} still open: packed by the daemon when full, or after batch_age, an hour unless set")
    if failed:
        raise Failure(f"{counted(len(failed), 'batch was', 'batches were')} not packed: see above")


@click.command(
    epilog=examples(
        "logagg db unpack --since 2026-11-01 --until 2026-11-02",
        "logagg db unpack --since 2026-11-01 --until 2026-11-02 --into november",
    )
)
@place_options
@click.option("--since", required=True, metavar="TIME", help="Records from this time on: 2026-11-20T10:00, 40d, ...")
@click.option("--until", default="now", metavar="TIME", help="Records before this time.")
@click.option("--utc/--local", default=False, help="The time zone of TIME.")
@click.option("--into", metavar="TABLE", help="A table of its own, made unless it is there; else it is logs.")
@click.option("--keep", callback=_span, metavar="DURATION", default="7d", help="How long the rows stay in logs.")
def unpack(
    config: Path | None,
    database_url: str | None,
    since: str,
    until: str,
    utc: bool,
    into: str | None,
    keep: timedelta,
) -> None:
    """Bring packed records back as rows, for SQL.

    Rows that are there already are not doubled, so this may be run again. What queries find does not change. Exits with
    2 when the packed form of a batch cannot be read; the others are unpacked.
    """
    begin, end = (_time(option, text, utc) for option, text in (("--since", since), ("--until", until)))
    action = partial(_unpack, since=begin, until=end, into=into, keep=keep)
    run(place_of(config, database_url), action, create=False)


def _time(option: str, text: str, utc: bool) -> datetime:
    try:
        return parse_time(text, datetime.now(UTC), UTC if utc else None)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None


async def _unpack(connection: Any, *, since: datetime, until: datetime, into: str | None, keep: timedelta) -> None:
    from logagg.sinks import unpacking

    await check_schema(connection)
    batches = added = there = failed = 0
    async for done in unpacking.unpack(connection, since, until, into=into, keep=keep):
        batches, added, there = batches + 1, added + done.added, there + done.there
        failed += done.error is not None
        note(done.error or f"batch {done.batch}: {counted(done.added, 'row')}")
    before = f", {there:,} were there" if there else ""
    click.echo(f"{counted(added, 'row')} of {counted(batches, 'batch', 'batches')} into {into or 'logs'}{before}")
    if failed:
        raise Failure(f"{counted(failed, 'batch was', 'batches were')} not unpacked: see above")


@click.command(
    epilog=examples(
        "logagg db prune --older-than 30d --dry-run",
        "logagg db prune --older-than 3d --service chatty",
        "logagg db prune --packed-size 200GB --dry-run",
    )
)
@place_options
@click.option("--older-than", callback=_span_or_none, metavar="DURATION", help="Such as 30d, by the time of receipt.")
@click.option("--service", metavar="NAME", help="Only records of this service; '' for those without.")
@click.option("--environment", metavar="NAME", help="Only records of this environment; '' for those without.")
@click.option("--packed-size", callback=_size, metavar="SIZE", help="The oldest batches, until all take no more.")
@click.option("--rows-size", callback=_size, metavar="SIZE", help="The oldest days of rows, until all take no more.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
def prune(
    config: Path | None,
    database_url: str | None,
    older_than: timedelta | None,
    service: str | None,
    environment: str | None,
    packed_size: int | None,
    rows_size: int | None,
    dry_run: bool,
) -> None:
    """Drop the oldest batches and rows, now.

    The daemons do this by themselves, by the settings retention, rows_retention, retention_size and
    rows_retention_size. Batches go as a whole, and rows by the day, once all batches with rows in that day are packed
    or gone; today's rows stay.

    Records of one service or environment, too, go by themselves, by the setting retention_for: the packed batches with
    some of them are written anew without, and their rows are deleted. What is in an open batch, or not packed yet, is
    left alone, and said.
    """
    if older_than is None and packed_size is None and rows_size is None:
        raise click.UsageError("say what shall go: --older-than, --packed-size or --rows-size")
    place = place_of(config, database_url)
    given = {"service": service, "environment": environment}
    named = {column: value for column, value in given.items() if value is not None}
    if not named:
        action = partial(_prune, older_than=older_than, packed_size=packed_size, rows_size=rows_size, dry_run=dry_run)
        click.echo(run(place, action, create=False))
    elif older_than is None or packed_size is not None or rows_size is not None or len(named) > 1:
        raise click.UsageError("--service or --environment, one of them, goes with --older-than alone")
    else:
        ((column, value),) = named.items()
        click.echo(run(place, partial(_trim, keep=(column, value, older_than), dry_run=dry_run), create=False))


async def _prune(
    connection: Any, *, older_than: timedelta | None, packed_size: int | None, rows_size: int | None, dry_run: bool
) -> str:
    from logagg.sinks import retention
    from logagg.sinks.locks import MAINTENANCE, locked

    await check_schema(connection)
    now = min(await connection.fetchval("select now()"), datetime.now(UTC))
    old = retention.border(now, older_than or timedelta.max, older_than)
    async with locked(connection, MAINTENANCE):
        old = await retention.within(connection, old, rows_size, packed_size)
        due = await retention.due(connection, old)
        dropped = retention.Dropped(
            tuple(name for name, needing in due.days.items() if not needing),
            {name: needing for name, needing in due.days.items() if needing},
            due.rows,
            due.batches,
            due.records,
        )
        if not dry_run:
            dropped = await retention.drop_expired(connection, old)
    being_filled, _ = await retention.waiting(connection, old.batches)  # closed ones go, packed or not
    records = counted(dropped.records, "record")
    lines = [
        f"batches     {dropped.batches:,}, with {records} packed into {sized(due.packed_bytes)}",
        f"partitions  {', '.join(dropped.partitions) or 'none'}, with {sized(due.rows_bytes)} of rows and indexes",
        *(f"kept        {name}: {_why(needing)}" for name, needing in dropped.kept.items()),
    ]
    if dropped.rows:
        lines.append(f"rows        {dropped.rows:,} outside of the partitions")
    lines += _left_alone(*being_filled)
    return "\n".join(["would drop" if dry_run else "dropped", *lines])


async def _trim(connection: Any, *, keep: tuple[str, str, timedelta], dry_run: bool) -> str:
    from logagg.sinks.locks import UNPACKING, locked
    from logagg.sinks.retention import before, waiting
    from logagg.sinks.trimming import Keep, Terms, trim

    await check_schema(connection)
    now = min(await connection.fetchval("select now()"), datetime.now(UTC))
    async with locked(connection, UNPACKING, wait=False) as ours:
        if not ours:
            raise Failure("an unpack, or a daemon's maintenance, is at the same records: try again in a minute")
        done = await trim(connection, Terms(None, (Keep(*keep),)), now, remember=False, dry_run=dry_run)
    column, value, span = keep
    being_filled, unpacked = await waiting(connection, before(now, span), column, value)
    would = "would drop" if dry_run else "dropped"
    said = f"{would} {counted(done.records, 'record', 'records')} out of {counted(done.batches, 'batch', 'batches')}"
    if done.errors:
        failed = counted(len(done.errors), "batch could", "batches could")
        raise Failure("\n  ".join([f"{said}; {failed} not be written anew:", *done.errors.values()]))
    return "\n".join([said, *_left_alone(*being_filled), *_left_alone(*unpacked, is_open=False)])


def _left_alone(batches: int, records: int, *, is_open: bool = True) -> list[str]:
    """Say which batches with records that are old enough stay, and until when; no line for none."""
    if not batches:
        return []
    one, many = ("open batch", "open batches") if is_open else ("batch", "batches")
    until = "closed after batch_age, or when its daemon stops" if is_open else "not packed yet, see logagg db pack"
    return [
        f"left alone  {counted(batches, one, many)} with {counted(records, 'such record', 'such records')}: {until}"
    ]


def _why(needing: int) -> str:
    return f"{counted(needing, 'batch is', 'batches are')} not packed yet" if needing else "it is in use"
