"""`logagg alerts`: how the alerts of a daemon stand, and whether their webhooks are taken."""

from typing import Any
from urllib.parse import quote

import click

from logagg.cli.counting import rows_of
from logagg.cli.group import SuggestingGroup
from logagg.cli.options import Printing, examples, printing_options
from logagg.cli.output import JsonArray, JsonLines, local_time, table
from logagg.cli.terminal import Failure, note, visible

_OUTPUTS = ("text", "jsonl", "json")


@click.group(cls=SuggestingGroup, epilog=examples("logagg alerts list", "logagg alerts test errors"))
def alerts() -> None:
    """Look at the alerts of the settings, and try them.

    With tokens, this needs one with the scope admin.
    """


@alerts.command("list", epilog=examples("logagg alerts list", "logagg alerts list -o jsonl"))
@printing_options(_OUTPUTS)
def list_(printing: Printing) -> None:
    """Show every alert, and how it stands."""
    rows = rows_of(printing.client().get("/alerts", {}))
    if printing.output != "text":
        form = JsonLines() if printing.output == "jsonl" else JsonArray()
        click.echo(form.head + form.page(rows) + form.tail(), nl=False)
    elif rows:
        shown = [row | {"since": _since(row, printing), "value": _value(row)} for row in rows]
        columns = ["name", "state", "since", "value", "waiting", "condition", "query"]
        click.echo(table(columns, shown, colour=printing.colour, numbers=("value", "waiting")), nl=False)
    else:
        note("there are no alerts: they are tables [[alerts]] of the settings")


@alerts.command(epilog=examples("logagg alerts test errors"))
@click.argument("name")
@printing_options(_OUTPUTS)
def test(printing: Printing, name: str) -> None:
    """Evaluate an alert now, and send a test to its webhook.

    The message has the state "test", and changes nothing. Exits with 2 when the webhook does not take it.
    """
    answer: dict[str, Any] = printing.client().post(f"/alerts/{quote(name, safe='')}/test", b"", "application/json")
    if printing.output != "text":
        form = JsonLines() if printing.output == "jsonl" else JsonArray()
        click.echo(form.head + form.page([answer]) + form.tail(), nl=False)
    else:
        found = {True: "it would fire", False: "it would not fire", None: "it could not be evaluated; see the log"}
        value = "" if answer["firing"] is None else f": {_number(answer)}"
        click.echo(f"{visible(answer['condition'])}: {found[answer['firing']]}{value}")
    if answer["problem"]:
        raise Failure(f"the webhook did not take the test: {visible(answer['problem'])}")
    if printing.output == "text":
        click.echo(f"the webhook took the test: {answer['status']}")


def _since(row: dict[str, Any], printing: Printing) -> str:
    return local_time(row["since"], printing.zone) if row["since"] else ""


def _value(row: dict[str, Any]) -> str:
    return "" if row["state"] == "unknown" else _number(row)


def _number(row: dict[str, Any]) -> str:
    """Write what was found, with its unit; there is always a number, but of a silence of what was not seen yet."""
    value, unit = row["value"], row["unit"]
    return "none seen" if value is None else f"{value:.15g} {unit.removesuffix('s') if value == 1 else unit}"
