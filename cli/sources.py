"""`logagg sources`: who sends, who has gone quiet, and who will not send any more."""

from collections.abc import Callable
from typing import Any, Final

import click
from click.core import ParameterSource

from logagg.cli.counting import rows_of
from logagg.cli.group import SuggestingGroup
from logagg.cli.options import Printing, adding, examples, printing_options
from logagg.cli.output import JsonArray, JsonLines, Row, counted, table
from logagg.cli.terminal import Screen, note

_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_NAMES: Final = ("host", "service", "environment", "transport")
_NUMBERS: Final = ("last seen", "records", "rate", "skew", "usual", "gaps")
_NOTHING: Final = "nothing was seen yet; a source is told some seconds after its first record"
#: By the name of an order, what to sort by.
_ORDERS: Final[dict[str, Callable[[Row], Any]]] = {
    "name": lambda row: [row[name] or "" for name in _NAMES],
    "last-seen": lambda row: row["silence"],
    "silence": lambda row: -row["silence"],
    "records": lambda row: -row["records"],
    "rate": lambda row: -row["rate"],
    "skew": lambda row: -abs(row["clock_skew"]),
}


_names = adding(
    click.option("--host", help="Only this host; '' for those without."),
    click.option("--service", help="Only this service; '' for those without."),
    click.option("--environment", help="Only this environment; '' for those without."),
    click.option("--transport", help="Only this listener, such as syslog-udp."),
)


@click.group(
    cls=SuggestingGroup,
    invoke_without_command=True,
    epilog=examples(
        "logagg sources                                    who sends",
        "logagg sources --sort rate --service shop",
        "logagg sources --silent                           who is quiet for longer than usual",
        "logagg sources --silent 2h                        who is quiet for two hours",
        "logagg sources --silent -o jsonl || mail -s quiet ops@example.com",
        "logagg sources forget --host web3                 who will not send any more",
    ),
)
@click.option(
    "--silent",
    is_flag=False,
    flag_value="usual",
    metavar="[DURATION]",
    help="Only those that are quiet for longer than is usual of them, or for so long: 90s, 15m, 2h.",
)
@_names
@click.option(
    "--sort", type=click.Choice(list(_ORDERS)), help="In which order.  [default: name; with --silent, silence]"
)
@printing_options(["text", "jsonl", "json"])
@click.pass_context
def sources(
    ctx: click.Context, /, printing: Printing, silent: str | None, sort: str | None, **only: str | None
) -> None:
    """Show who sends.

    A source is a host, a service and an environment, as records name them, and the listener that they came by. A source
    is silent after ten times its usual interval, and after a minute at the least, once it was seen in ten minutes.

    The rate is records a second over some five minutes; the skew is how late records come, or how slow their clock is.

    Exits with 0; with --silent, with 1 when there are such sources.
    """
    if ctx.invoked_subcommand:
        if given := [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]:
            raise click.UsageError(f"--{given[0]} goes behind `{ctx.invoked_subcommand}`")
        return
    params = _given(only)
    if silent:
        params |= {"silent": "true"} if silent == "usual" else {"silent_for": silent}
    rows = rows_of(printing.client().get("/sources", params))
    rows.sort(key=_ORDERS[sort or ("silence" if silent else "name")])
    with Screen(pager=printing.pager) as screen:
        screen.write(_printed(rows, printing))
    if not rows and not silent:
        note(f"there is no source of {_named(params)}" if params else _NOTHING)
    ctx.exit(1 if silent and rows else 0)


@sources.command(
    epilog=examples(
        "logagg sources forget --host web3",
        "logagg sources forget --host web3 --dry-run       which these are",
        "logagg sources forget --service shop --transport tcp",
    )
)
@_names
@click.option("--dry-run", is_flag=True, help="Show the sources, and forget none.")
@printing_options(["text", "jsonl", "json"])
@click.pass_context
def forget(ctx: click.Context, /, printing: Printing, dry_run: bool, **only: str | None) -> None:
    """Forget sources that will not send any more.

    Their records stay; a source that sends again comes again. With tokens, this needs one with the scope admin.

    Exits with 0 when there were some, 1 when there were none.
    """
    if not (params := _given(only)):
        raise click.UsageError("say which: --host, --service, --environment or --transport")
    if dry_run:
        rows = rows_of(printing.client().get("/sources", params))
        count = len(rows)
        click.echo(_printed(rows, printing), nl=False)
    else:
        answer: dict[str, Any] = printing.client().delete("/sources", params)
        count = answer["forgotten"]
        if printing.output != "text":
            click.echo(_formed([answer], printing), nl=False)
    told = counted(count, "source")
    if not count:
        note(f"there is no source of {_named(params)}")
    elif dry_run:
        note(f"{told} would be forgotten")
    elif printing.output == "text":
        click.echo(f"forgot {told}")
    ctx.exit(0 if count else 1)


def _named(params: dict[str, str]) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in params.items())


def _given(only: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in only.items() if value is not None}


def _printed(rows: list[Row], printing: Printing) -> str:
    if printing.output != "text":
        return _formed(rows, printing)
    if not rows:
        return ""
    names = [name for name in _NAMES if name != "environment" or any(row[name] for row in rows)]
    return table([*names, *_NUMBERS], [_shown(row) for row in rows], colour=printing.colour, numbers=_NUMBERS)


def _formed(rows: list[Row], printing: Printing) -> str:
    form = JsonLines() if printing.output == "jsonl" else JsonArray()
    return form.head + form.page(rows) + form.tail()


def _shown(row: Row) -> Row:
    usual = row["usual_interval"]
    return row | {
        "last seen": f"{_span(row['silence'])} ago",
        "records": f"{row['records']:,}",
        "rate": _rate(row["rate"]),
        "skew": _span(row["clock_skew"]),
        "usual": "" if usual is None else _span(usual),
        "gaps": str(row["gaps"]),
    }


def _rate(rate: float) -> str:
    """Write records a second in the unit in which there is at least one; nothing for less than one an hour."""
    for unit, seconds in (("s", 1), ("m", 60), ("h", 3600)):
        if rate * seconds >= 1:
            return f"{rate * seconds:,.1f}/{unit}"
    return ""


def _span(seconds: float) -> str:
    """Write a span of time with its two largest units; below ten seconds with fractions."""
    sign, seconds = "-" if seconds < 0 else "", abs(seconds)
    if seconds < 10:
        return f"{sign}{seconds:.2f}s".replace("-0.00s", "0.00s")
    whole = round(seconds)
    parts: list[str] = []
    for unit, size in _UNITS:
        number, whole = divmod(whole, size)
        if number or parts:
            parts.append(f"{number}{unit}")
    return sign + "".join(parts[:2])
