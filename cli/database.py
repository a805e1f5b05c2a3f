"""`logagg db`: the commands that talk to PostgreSQL itself, not to the daemon."""

import contextlib
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from logagg.cli.database_reader import Reader, reader_options
from logagg.cli.database_records import pack, prune, unpack
from logagg.cli.database_sql import sql
from logagg.cli.group import SuggestingGroup
from logagg.cli.options import examples
from logagg.cli.output import compact, counted
from logagg.cli.postgres import NO_SCHEMA, Place, check_schema, forgotten, place_of, place_options, run, shown, sized
from logagg.cli.terminal import Failure


@click.group(cls=SuggestingGroup, epilog=examples("logagg db status", 'psql "$(logagg db url)"'))
def db() -> None:
    """Make, update and look at the database itself."""


@db.command(
    epilog=examples(
        "logagg db init",
        "logagg db init --database-url postgresql://logs@db/logs",
        "logagg db init --reader grafana --password-file grafana.password",
    )
)
@place_options
@reader_options
def init(config: Path | None, database_url: str | None, reader: Reader | None) -> None:
    """Make the tables, or bring them up to date.

    Safe to run again.

    Without an address in the settings this makes the embedded PostgreSQL, too. `logagg serve` does the same by itself.

    With --reader, also make a role that may select from logs, batches and quarantine, and may do nothing else; it
    needs a user who may create roles.
    """
    click.echo(run(place_of(config, database_url), partial(_init, reader=reader), create=True))


@db.command(epilog=examples("logagg db migrate"))
@place_options
def migrate(config: Path | None, database_url: str | None) -> None:
    """Bring existing tables up to date.

    Safe to run again, and by several at once.
    """
    click.echo(run(place_of(config, database_url), _update, create=False))


@db.command(epilog=examples("logagg db status", "logagg db status -o json"))
@place_options
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="The form of what is printed."
)
def status(config: Path | None, database_url: str | None, output: str) -> None:
    """Print what the database holds.

    That is its schema, records, batches, partitions, sizes, quarantine, and the oldest and the newest times.
    The number of rows is an estimate, and their times are told by whole days, so that this is quick at any size.
    """
    place = place_of(config, database_url)
    found = run(place, _status, create=False)
    if output == "json":
        times = {name: value.isoformat() for name, value in found.items() if isinstance(value, date)}
        click.echo(compact(found | times))
    else:
        click.echo(_status_text(place, found))


@db.command(epilog=examples('psql "$(logagg db url)"', 'pg_dump "$(logagg db url)" > logs.sql'))
@place_options
def url(config: Path | None, database_url: str | None) -> None:
    """Print the address for psql and other programs.

    It has the password in it. Nothing is started: for the embedded PostgreSQL that is where its socket is, while it
    runs. Exits with 2 when it does not.
    """
    place = place_of(config, database_url)
    if place.url:
        click.echo(place.url)
        return
    server = place.embedded()
    try:
        running = server.running()
    except PermissionError:
        raise Failure(f"{server.data_dir} belongs to another user: run this as the user of `logagg serve`") from None
    if not running:
        raise Failure(
            f"the embedded PostgreSQL in {server.data_dir} is not running{forgotten()}:"
            " start it with `logagg serve`, or set LOGAGG_DATA_DIR"
        )
    click.echo(server.url)


async def _init(connection: Any, *, reader: Reader | None) -> str:
    migrated = await _migrate(connection)
    return "\n".join([migrated, *await reader.make(connection)]) if reader else migrated


async def _migrate(connection: Any) -> str:
    from logagg.sinks import schema

    made = await schema.migrate(connection)
    newest = schema.migrations()[-1].number
    if not made:
        return f"schema {newest}: nothing to do"
    return f"schema {newest}: applied " + ", ".join(f"{each.number} {each.name}" for each in made)


async def _update(connection: Any) -> str:
    from logagg.sinks import schema

    if not await schema.applied(connection):
        raise Failure(NO_SCHEMA)
    return await _migrate(connection)


async def _status(connection: Any) -> dict[str, Any]:
    from logagg.sinks import schema

    await check_schema(connection)
    row = await connection.fetchrow(Path(__file__).with_name("status.sql").read_text("utf-8"))
    schemas = {"schema": max(await schema.applied(connection)), "schema_known": schema.migrations()[-1].number}
    each = {
        "rows_bytes_per_record": _ratio(row["rows_bytes"], row["rows_estimate"]),
        "packed_bytes_per_record": _ratio(row["packed_bytes"], row["packed_records"]),
    }
    return {**schemas, **row, **each}


def _ratio(size: int, records: int) -> float | None:
    return round(size / records, 1) if records else None


def _status_text(place: Place, found: dict[str, Any]) -> str:
    sizes = {name: sized(value) for name, value in found.items() if name.endswith("_bytes")}
    days = f"{found['partitions']}: {found['first_partition']} to {found['last_partition']}"
    filled = "from {rows_oldest_day} to {rows_newest_day}, days in UTC".format(**found)
    lines = {
        "database": f"{shown(place)}, PostgreSQL {found['server_version']}, {sizes['database_bytes']}",
        "schema": found["schema"],
        "records": f"{found['records']:,}",
        "batches": "{batches_open} open, {batches_closed} closed, {batches_packed} packed".format(**found),
        "lag": _lag(found),
        "rows": f"about {found['rows_estimate']:,}"
        + _form(found["rows_bytes_per_record"], "{rows_bytes}, of which {rows_index_bytes} indexes", sizes),
        **({"rows received": filled} if found["rows_oldest_day"] else {}),
        "packed": f"{found['packed_records']:,}"
        + _form(
            found["packed_bytes_per_record"],
            "{packed_bytes}: head {head_bytes}, body {body_bytes}, filter {filter_bytes}, summary {summary_bytes}",
            sizes,
        ),
        "partitions": days if found["partitions"] else "none",
        "quarantine": f"{counted(found['quarantined'], 'record')}, {sizes['quarantine_bytes']}",
    }
    if found["rows_in_default_partition"]:
        lines["partitions"] += f", and {counted(found['rows_in_default_partition'], 'row')} outside of them"
    for title, prefix in (("", ""), ("packed ", "packed_")):
        for what in ("received", "timestamp"):
            span = _span(found[f"{prefix}oldest_{what}"], found[f"{prefix}newest_{what}"])
            lines[f"{title}{what}".replace("timestamp", "timestamps" if not prefix else "times")] = span
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}} {value}" for name, value in lines.items())


def _lag(found: dict[str, Any]) -> str:
    if not found["lag_batches"]:
        return "none"
    waiting = f"{counted(found['lag_batches'], 'batch', 'batches')}, {counted(found['lag_records'], 'record')}"
    return f"{waiting}, the oldest closed for {found['lag_seconds']:,.0f} s"


def _form(each: float | None, text: str, sizes: dict[str, str]) -> str:
    return "" if each is None else f" in {text.format(**sizes)}; {each:,.{1 if each < 100 else 0}f} bytes a record"


def _span(oldest: datetime | None, newest: datetime | None) -> str:
    if oldest is None or newest is None:
        return "nothing yet"
    return f"{_moment(oldest)} to {_moment(newest)}"


def _moment(moment: datetime) -> str:
    with contextlib.suppress(OverflowError, ValueError):  # the first and the last day there is, in some zones
        moment = moment.astimezone()
    return f"{moment:%Y-%m-%d %H:%M:%S%z}"


for command in (pack, unpack, prune, sql):
    db.add_command(command)
