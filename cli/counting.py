"""`logagg aggregate` and `histogram`: what matches, counted."""

import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click

from logagg.cli.charts import bars
from logagg.cli.options import Asking, Whole, examples, reading_options
from logagg.cli.output import Csv, Form, JsonArray, JsonLines, Row, compact, local_time, table
from logagg.cli.terminal import Failure, Screen, note
from logagg.protocols.record import LEVELS

OUTPUTS = ["text", "jsonl", "json", "csv"]
#: What an aggregation says of the numbers in a field.
_SPREAD = ("numbers", "min", "max", "avg", "p50", "p90", "p95", "p99")


@click.command(
    epilog=examples(
        "logagg aggregate                                  by service and level",
        "logagg aggregate timeout --by host --since 1h -n 10",
        "logagg aggregate --by environment,service --level error -o csv",
        "logagg aggregate --by service --of duration_ms    how long things took",
        "logagg aggregate --by level --interval 1h --since today",
        "logagg aggregate --by user.id -n 10               the ten that occur most",
    )
)
@click.option(
    "--by", default="service,level", metavar="FIELDS", help="What to count by: columns and attributes, with commas."
)
@click.option("--of", metavar="FIELD", help="Also min, max, avg and percentiles of the numbers in this field.")
@click.option("--interval", metavar="SPAN", help="Also by time, in bins of this width: 30s, 5m, 1h; days are of UTC.")
@click.option("-n", "--limit", type=Whole(0), default=0, metavar="ROWS", help="So many at most, the largest; 0: all.")
@reading_options(OUTPUTS)
def aggregate(asking: Asking, query: Sequence[str], by: str, of: str | None, interval: str | None, limit: int) -> None:
    """Count matching records by fields.

    Prints how many records that match QUERY have each combination of values, the most first.
    """
    if not by.strip():
        raise click.UsageError("--by names nothing to count by")
    asked = {"by": by, "of": of, "interval": interval, "limit": str(limit) if limit else None}
    params = asking.params(query) | {name: value for name, value in asked.items() if value}
    rows = rows_of(asking.client().get("/logs/aggregations", params))
    names = [name.strip() for name in by.split(",")]
    results = ["count", *(_SPREAD if of else ())]
    columns = [*(["time"] if interval else []), *names, *results]
    if asking.output == "text":
        shown = [{name: _short(name, value, asking) for name, value in row.items()} for row in rows]
        show(asking, table(columns, shown, colour=asking.colour, numbers=results))
    else:
        print_rows(asking, form_of(asking, columns), rows)


@click.command(
    epilog=examples(
        "logagg histogram --since 1h",
        "logagg histogram timeout --since today --interval 10m",
        "logagg histogram --level error -o csv > errors.csv",
    )
)
@click.option("--interval", metavar="SPAN", help="Width of a bar: 30s, 5m, 1h; days are of UTC. Else one that suits.")
@reading_options(OUTPUTS)
def histogram(asking: Asking, query: Sequence[str], interval: str | None) -> None:
    """Draw matching records over time.

    Prints how many records match QUERY in each span of time, with a bar by level.
    """
    params = asking.params(query) | ({"interval": interval} if interval else {})
    answer = asking.client().get("/logs/histogram", params)
    if not isinstance(answer, dict) or not isinstance(answer.get("bins"), list):
        raise Failure("the answer to /logs/histogram has no bins; is it logagg?")
    bins, seconds = rows_of(answer["bins"]), answer.get("interval_seconds") or 1
    if asking.output == "text":
        width = shutil.get_terminal_size().columns
        show(asking, bars(bins, seconds, width=width, zone=asking.zone, colour=asking.colour))
        if beyond := (answer.get("before") or 0) + (answer.get("after") or 0):
            note(f"... {beyond} more records lie far before or after: --since, --until")
    elif asking.output == "json":
        show(asking, compact(answer) + "\n")
    elif asking.output == "csv":
        flat = [{**dict.fromkeys(LEVELS, 0), **each["levels"], **each} for each in bins]
        print_rows(asking, form_of(asking, ["start", "total", *LEVELS]), flat)
    else:
        print_rows(asking, JsonLines(), bins)


def _short(name: str, value: Any, asking: Asking) -> Any:
    """Write a number with fractions in so many digits as help, and the start of a bin in the zone."""
    if name == "time":
        return local_time(value, asking.zone)
    return f"{value:.6g}" if isinstance(value, float) else value


def rows_of(answer: Any) -> list[Row]:
    """Return the rows of an answer. Raises Failure when it has none."""
    if not isinstance(answer, list) or not all(isinstance(row, dict) for row in answer):
        raise Failure("the answer is JSON, but no list of objects; is it logagg?")
    return answer


def form_of(asking: Asking, columns: Sequence[str]) -> Form:
    """Return the form for rows of these columns, where it is not text."""
    if asking.output == "csv":
        return Csv(columns, terminal=sys.stdout.isatty())
    return JsonLines() if asking.output == "jsonl" else JsonArray()


def print_rows(asking: Asking, form: Form, rows: Sequence[Row]) -> None:
    """Print rows in a form."""
    show(asking, form.head + form.page(rows) + form.tail())


def show(asking: Asking, text: str) -> None:
    """Print a text, through the pager when it is long."""
    with Screen(pager=asking.pager) as screen:
        screen.write(text)
