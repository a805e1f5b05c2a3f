"""`logagg db sql`: one statement that reads, and its rows as they come."""

import json
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from logagg.cli.options import examples
from logagg.cli.output import BOLD, Csv
from logagg.cli.postgres import place_of, place_options, run
from logagg.cli.terminal import Failure, Screen, harmless_json, paint, visible, wants_colour

if TYPE_CHECKING:
    import asyncpg

#: Rows that are fetched first, and at most; and characters that one fetch should give.
_FIRST, _MOST, _CHARACTERS = 100, 1000, 1 << 20
#: A column of the table is padded up to this; a longer value just takes its room.
_WIDEST = 40

_BEGIN = """
begin read only;
set local timezone = 'UTC'; set local datestyle = 'ISO'; set local intervalstyle = 'postgres';
set local bytea_output = 'hex';
"""
#: Types that are taken as PostgreSQL writes them. Arrays of them are lists.
_TEXTS = (
    "timestamp", "date", "time", "timetz", "interval", "bytea", "uuid", "inet", "cidr", "macaddr", "money", "xml",
    "point", "box", "bit", "varbit", "tsvector", "jsonpath", "pg_lsn", "regclass", "oid", "xid", "tid", "name", "void",
    "record",
)  # fmt: skip
_NUMBERS = ("numeric", "float4", "float8")
_AWARE = re.compile(r"(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?)\+00")


class Json(str):
    """Text that is JSON already."""

    __slots__ = ()


def duration(_: click.Context, param: click.Parameter, value: str) -> timedelta:
    """Read the value of an option such as 30s."""
    from logagg.collector.units import parse_duration

    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from None


@click.command(
    epilog=examples(
        'logagg db sql "select level(severity), count(*) from logs group by 1"',
        "logagg db sql \"select message from logs where received_at > now() - interval '1 hour'\" -o jsonl",
        "logagg db sql --timeout 10m -o csv - < report.sql > report.csv",
    )
)
@click.argument("statement")
@click.option("--timeout", callback=duration, default="30s", metavar="SPAN",
              help="How long PostgreSQL may work for the next rows; 0: no limit.")  # fmt: skip
@click.option(
    "-o", "--output", type=click.Choice(["table", "jsonl", "csv"]), default="table", help="The form of what is printed."
)
@place_options
@click.pass_context
def sql(
    ctx: click.Context, statement: str, timeout: timedelta, output: str, config: Path | None, database_url: str | None
) -> None:
    """Run one statement that reads, and print its rows.

    STATEMENT is one select, with, values, table, show or explain; - reads it from standard input. It runs in a
    transaction that is read-only, so a slip changes nothing. Rows are printed as they come, in any number. Times are
    UTC, as in 2026-11-20T10:00:00Z.

    Exits with 0 when there were rows, 1 when there were none, 2 on errors.
    """
    text = sys.stdin.read() if statement == "-" else statement
    found = run(place_of(config, database_url), partial(_print, text=text, limit=timeout, output=output), create=False)
    if isinstance(found, BrokenPipeError):  # what runs the commands ends quietly on it
        raise found
    ctx.exit(0 if found else 1)


async def _print(
    connection: "asyncpg.Connection", *, text: str, limit: timedelta, output: str
) -> int | BrokenPipeError:
    """Print the rows; return how many. A reader that has gone is returned: raised, it would be one of the database."""
    import asyncpg

    await _take_texts(connection)
    try:
        await connection.execute(_BEGIN + f"set local statement_timeout = {round(limit.total_seconds() * 1000)}")
        return await _print_rows(connection, text, output)
    except BrokenPipeError as error:
        return error
    except asyncpg.PostgresError as error:
        raise _failure(error, text) from None
    except asyncpg.InterfaceError as error:
        if connection.is_closed():
            raise
        raise Failure(visible(str(error).splitlines()[0])) from None


async def _print_rows(connection: "asyncpg.Connection", text: str, output: str) -> int:
    names = [each.name for each in (await connection.prepare(text)).get_attributes()]
    if not names:
        raise Failure("this statement returns no rows: one of select, with, values, table, show and explain does")
    cursor = await connection.cursor(text)
    form = _form(output, _distinct(names))
    count, ahead = 0, _FIRST
    with Screen(pager=True) as screen:
        screen.write(form.head)
        while rows := await cursor.fetch(ahead):
            count += len(rows)
            printed = form.lines([tuple(row) for row in rows])
            screen.write(printed)
            ahead = max(1, min(_MOST, len(rows) * _CHARACTERS // (len(printed) + 1)))
    return count


async def _take_texts(connection: "asyncpg.Connection") -> None:
    """Have values come as PostgreSQL writes them, which also works for times that Python cannot hold."""
    decoders = {**dict.fromkeys(_TEXTS, str), **dict.fromkeys(_NUMBERS, _number)}
    decoders |= {"json": _json, "jsonb": _json, "timestamptz": _rfc3339}
    for name, decoder in decoders.items():
        await connection.set_type_codec(name, schema="pg_catalog", encoder=str, decoder=decoder, format="text")


def _number(text: str) -> str:
    return text if "n" in text.lower() else Json(text)  # NaN and Infinity are no JSON


def _json(text: str) -> Json:
    return Json(re.sub(r"[\r\n]+", " ", text))  # only between values: within a string they are escaped


def _rfc3339(text: str) -> str:
    found = _AWARE.fullmatch(text)
    return f"{found[1]}T{found[2]}Z" if found else text  # else infinity, or before Christ


def _failure(error: "asyncpg.PostgresError", text: str) -> Failure:
    """Return what PostgreSQL says in one line, and below it the place in the statement."""
    from logagg.query.errors import QueryError

    said = " ".join(str(getattr(error, "message", None) or error).split())
    if "multiple commands" in said:  # PostgreSQL's words for a statement that was prepared
        return Failure("these are several statements: `logagg db sql` takes one")
    hints = [" ".join(each.split()) for each in (getattr(error, "detail", None), getattr(error, "hint", None)) if each]
    said += f" ({'; '.join(hints)})" if hints else ""
    place = getattr(error, "position", None)
    return Failure(visible(str(QueryError(said, text, int(place) - 1) if place else said), block=True))


def _distinct(names: Sequence[str]) -> list[str]:
    """Give columns of equal names a number: `count`, `count_2`."""
    found: list[str] = []
    for name in names:
        unique, number = name, 1
        while unique in found:
            number += 1
            unique = f"{name}_{number}"
        found.append(unique)
    return found


def as_json(value: Any) -> str:
    """Write a value as JSON."""
    if isinstance(value, Json):
        return value
    if value is None or isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_json, value))}]"
    if isinstance(value, bytes):
        return json.dumps(value.decode("utf-8", "replace"), ensure_ascii=False)
    if hasattr(value, "items"):  # a row of a composite type
        return "{" + ",".join(f"{json.dumps(key)}:{as_json(each)}" for key, each in value.items()) + "}"
    written = re.fullmatch(r"<Range (.*)>", str(value), re.DOTALL)
    return json.dumps(written[1] if written else str(value), ensure_ascii=False)


def as_text(value: Any) -> str:
    """Write a value for a cell; null is empty."""
    return "" if value is None else str(value) if isinstance(value, str) else as_json(value).strip('"')


class _Form(Protocol):
    """How rows become text."""

    head: str

    def lines(self, rows: Sequence[tuple[Any, ...]]) -> str:
        """Return rows as whole lines."""


def _form(output: str, names: Sequence[str]) -> _Form:
    match output:
        case "jsonl":
            return _JsonLines(names)
        case "csv":
            return _Csv(names)
        case _:
            return _Table(names)


class _JsonLines:
    """One JSON object a line."""

    head = ""

    def __init__(self, names: Sequence[str]) -> None:
        self._keys = [json.dumps(name, ensure_ascii=False) for name in names]

    def lines(self, rows: Sequence[tuple[Any, ...]]) -> str:
        """Return a line for each row."""
        pairs = (zip(self._keys, row, strict=True) for row in rows)
        objects = ("{" + ",".join(f"{key}:{as_json(value)}" for key, value in row) + "}\n" for row in pairs)
        return "".join(harmless_json(line) for line in objects)


class _Csv:
    """As the answers of the daemon: RFC 4180 with LF line ends."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._form = Csv(names, terminal=sys.stdout.isatty())
        self.head = self._form.head

    def lines(self, rows: Sequence[tuple[Any, ...]]) -> str:
        """Return a line for each row, or several where a value has line ends."""
        return self._form.page([dict(zip(self._names, map(as_text, row), strict=True)) for row in rows])


class _Table:
    """Aligned columns, as wide as the first rows make them; numbers to the right."""

    head = ""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._widths: list[int] = []
        self._right: list[bool] = []

    def lines(self, rows: Sequence[tuple[Any, ...]]) -> str:
        """Return a line for each row, the first time below a header."""
        cells = [[visible(as_text(value)) or "-" for value in row] for row in rows]
        if self._widths:
            return "".join(map(self._line, cells))
        header = [visible(name).upper() for name in self._names]
        self._widths = [min(_WIDEST, max(map(len, column))) for column in zip(header, *cells, strict=True)]
        self._right = [all(_numeric(value) for value in column) for column in zip(*rows, strict=True)]
        first = paint(self._line(header).rstrip("\n"), BOLD if wants_colour("auto") else "")
        return "\n".join([first, "".join(map(self._line, cells))])

    def _line(self, values: Sequence[str]) -> str:
        padded = [
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, self._widths, self._right, strict=True)
        ]
        return f"{'  '.join(padded).rstrip()}\n"


def _numeric(value: Any) -> bool:
    return value is None or (isinstance(value, int | Json) and str(value)[-1:].isdigit())
