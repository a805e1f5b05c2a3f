"""`logagg quarantine`: look at what could not become a record, try it again, or let go of it."""

import codecs
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logagg.cli.database_sql import duration
from logagg.cli.group import SuggestingGroup
from logagg.cli.options import Whole, examples
from logagg.cli.output import Csv, Form, JsonArray, JsonLines, local_time, table
from logagg.cli.postgres import check_schema, place_of, place_options, run, sized
from logagg.cli.quarantine_replay import ID, missing, replay
from logagg.cli.terminal import Failure, Screen, note, visible, wants_colour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logagg.sinks.quarantine import Dropped, Entry, Listed

_COLUMNS = ("id", "received_at", "transport", "source", "reason", "size", "excerpt")
#: Characters of an excerpt in a table.
_WIDEST = 60


@click.group(cls=SuggestingGroup, epilog=examples("logagg quarantine list", "logagg quarantine replay --all"))
def quarantine() -> None:
    """Look at what could not become a record, and try it again."""


quarantine.add_command(replay)


@quarantine.command(
    "list", epilog=examples("logagg quarantine list --transport tcp", "logagg quarantine list -n 0 -o jsonl")
)
@click.option("-n", "--limit", type=Whole(0), default=100, help="Entries at most, the latest; 0: all.")
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
@click.argument("number", metavar="ID", type=ID)
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
        raise Failure(missing([number]))
    return entry


def _age(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    return None if value is None else duration(ctx, param, value)


@quarantine.command(
    epilog=examples("logagg quarantine drop 7 8", "logagg quarantine drop --older-than 7d --dry-run"),
)
@click.argument("numbers", metavar="[ID]...", type=ID, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that is in quarantine.")
@click.option("--older-than", callback=_age, metavar="DURATION", help="Such as 7d, by the time of receipt.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@place_options
def drop(
    numbers: tuple[int, ...],
    everything: bool,
    older_than: timedelta | None,
    dry_run: bool,
    config: Path | None,
    database_url: str | None,
) -> None:
    """Delete entries, for good.

    The daemons do this by themselves with what is older than the setting retention, or beyond quarantine_size.
    """
    if [bool(numbers), everything, older_than is not None].count(True) != 1:
        raise click.UsageError("say what shall go: IDs, --all or --older-than, one of them")
    action = partial(_drop, chosen=list(set(numbers)) or None, older_than=older_than, dry_run=dry_run)
    dropped = run(place_of(config, database_url), action, create=False)
    entries = "1 entry" if dropped.entries == 1 else f"{dropped.entries:,} entries"
    click.echo(f"{'would drop' if dry_run else 'dropped'} {entries}, {sized(dropped.size)}")
    if absent := sorted(set(numbers) - set(dropped.named)):
        raise Failure(missing(absent))


async def _drop(connection: Any, *, chosen: list[int] | None, older_than: timedelta | None, dry_run: bool) -> "Dropped":
    from logagg.sinks import quarantine

    await check_schema(connection)
    return await quarantine.drop(connection, chosen, older_than, dry_run=dry_run)


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _escaped(data: bytes, *, cut: int = 0) -> str:
    """Return UTF-8 as it is, else with all that is none spelled out. Of `cut` bytes these may be the first ones."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=cut <= len(data))
    except UnicodeDecodeError:
        return data.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
