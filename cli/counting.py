"""`logagg aggregate`, `histogram` and `patterns`: what matches, counted."""

import shutil
import sys
from collections.abc import Sequence
from typing import Any

import click

from logagg.cli.charts import bars
from logagg.cli.options import Asking, examples, reading_options
from logagg.cli.output import Csv, Form, JsonArray, JsonLines, Row, compact, local_time, table
from logagg.cli.terminal import Failure, Screen, note
from logagg.protocols.record import LEVELS

OUTPUTS = ["text", "jsonl", "json", "csv"]
#: Services of a pattern that text output names.
_SERVICES = 3
#: What an aggregation says of the numbers in a field.
_SPREAD = ("numbers", "min", "max", "avg", "p50", "p90", "p95", "p99")


@click.command(
    epilog=examples(
        "logagg aggregate                                  by service and level",
        "logagg aggregate timeout --by host --since 1h -n 10",
        "logagg aggregate --by environment,service --level error -o csv",
        "logagg aggregate --by service --of duration_ms    how long things took",
    )
)
@click.option("--by", default="service,level", metavar="COLUMNS", help="Columns to count by, with commas.")
@click.option("--of", metavar="FIELD", help="Also min, max, avg and percentiles of the numbers in this field.")
@click.option("-n", "--limit", type=click.IntRange(0), default=0, help="Rows at most, the largest; 0: all.")
@reading_options(OUTPUTS)
def aggregate(asking: Asking, query: Sequence[str], by: str, of: str | None, limit: int) -> None:
    """Count matching records by columns.

    Prints how many records that match QUERY have each combination of values, the most first.
    """
    params = asking.params(query) | {"by": by} | ({"of": of} if of else {})
    rows = _rows(asking.client().get("/logs/aggregations", params))
    rows = rows[:limit] if limit else rows
    results = ["count", *(_SPREAD if of else ())]
    columns = [*(name.strip() for name in by.split(",")), *results]
    if asking.output == "text":
        shown = [{name: _short(value) for name, value in row.items()} for row in rows]
        _show(asking, table(columns, shown, colour=asking.colour, numbers=results))
    else:
        _print(asking, _form(asking, columns), rows)


@click.command(
    epilog=examples(
        "logagg histogram --since 1h",
        "logagg histogram timeout --since today --interval 10m",
        "logagg histogram --level error -o csv > errors.csv",
    )
)
@click.option("--interval", metavar="SPAN", help="Width of a bar: 30s, 5m, 1h, 1d; else one that suits the range.")
@reading_options(OUTPUTS)
def histogram(asking: Asking, query: Sequence[str], interval: str | None) -> None:
    """Draw matching records over time.

    Prints how many records match QUERY in each span of time, with a bar by level.
    """
    params = asking.params(query) | ({"interval": interval} if interval else {})
    answer = asking.client().get("/logs/histogram", params)
    if not isinstance(answer, dict) or not isinstance(answer.get("bins"), list):
        raise Failure("the answer to /logs/histogram has no bins; is it logagg?")
    bins, seconds = _rows(answer["bins"]), answer.get("interval_seconds") or 1
    if asking.output == "text":
        width = shutil.get_terminal_size().columns
        _show(asking, bars(bins, seconds, width=width, zone=asking.zone, colour=asking.colour))
        if beyond := (answer.get("before") or 0) + (answer.get("after") or 0):
            note(f"... {beyond} more records lie far before or after: --since, --until")
    elif asking.output == "json":
        _show(asking, compact(answer) + "\n")
    elif asking.output == "csv":
        flat = [{**dict.fromkeys(LEVELS, 0), **each["levels"], **each} for each in bins]
        _print(asking, _form(asking, ["start", "total", *LEVELS]), flat)
    else:
        _print(asking, JsonLines(), bins)


@click.command(
    epilog=examples(
        "logagg patterns                                   the last 24 hours",
        "logagg patterns --since 1h --service billing",
        "logagg patterns 'level>=warning' --since today -n 20 -o jsonl",
    )
)
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50, help="Patterns at most, the most frequent.")
@reading_options(OUTPUTS)
def patterns(asking: Asking, query: Sequence[str], limit: int) -> None:
    """Show the forms of matching messages.

    Messages of one form differ only in what varies, written <*>; the most frequent form comes first. Without
    --since, those of the last 24 hours.
    """
    rows = _rows(asking.client().get("/logs/patterns", {"q": "*"} | asking.params(query) | {"limit": str(limit)}))
    if asking.output == "text":
        shown = [_pattern_row(row, asking) for row in rows]
        _show(asking, table(["count", "last seen", "services", "pattern"], shown, colour=asking.colour))
    else:
        _print(asking, _form(asking, ["pattern", "count", "first_seen", "last_seen", "services"]), rows)


def _short(value: Any) -> Any:
    """Write a number with fractions in so many digits as help."""
    return f"{value:.6g}" if isinstance(value, float) else value


def _pattern_row(row: Row, asking: Asking) -> Row:
    services = [str(service) for service in row.get("services") or ()]
    named = ",".join(services[:_SERVICES]) + (f" +{len(services) - _SERVICES}" if len(services) > _SERVICES else "")
    seen = local_time(row.get("last_seen"), asking.zone)
    return {"count": row.get("count"), "last seen": seen, "services": named, "pattern": row.get("pattern")}


def _rows(answer: Any) -> list[Row]:
    if not isinstance(answer, list) or not all(isinstance(row, dict) for row in answer):
        raise Failure("the answer is JSON, but no list of objects; is it logagg?")
    return answer


def _form(asking: Asking, columns: Sequence[str]) -> Form:
    if asking.output == "csv":
        return Csv(columns, terminal=sys.stdout.isatty())
    return JsonLines() if asking.output == "jsonl" else JsonArray()


def _print(asking: Asking, form: Form, rows: Sequence[Row]) -> None:
    _show(asking, form.head + form.page(rows) + form.tail())


def _show(asking: Asking, text: str) -> None:
    with Screen(pager=asking.pager) as screen:
        screen.write(text)
