"""`logagg search`."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from logagg.cli.client import Client
from logagg.cli.options import Asking, examples, reading_options
from logagg.cli.output import RECORD_FIELDS, Csv, Form, JsonArray, JsonLines, Raw, Text
from logagg.cli.terminal import Screen, note

#: Records asked for at once.
PAGE = 1000


def record_form(asking: Asking) -> Form:
    """Return the form of records that was asked for."""
    terminal = sys.stdout.isatty()
    match asking.output:
        case "jsonl":
            return JsonLines()
        case "json":
            return JsonArray()
        case "csv":
            return Csv(RECORD_FIELDS, terminal=terminal)
        case "raw":
            return Raw(terminal=terminal)
        case _:
            return Text(colour=asking.colour, zone=asking.zone)


@click.command(
    epilog=examples(
        "logagg search                                  the latest 100 records",
        "logagg search timeout --since 15m --level error",
        "logagg search 'service:billing \"connection refused\" -retry'",
        "logagg search --since yesterday --until today -n 0 -o jsonl > yesterday.jsonl",
        "logagg search --newest-first -o raw | head",
    )
)
@click.option("-n", "--limit", type=click.IntRange(0), default=100, help="Records at most, the latest; 0: all.")
@click.option(
    "-r", "--newest-first", "--reverse", "newest_first", is_flag=True, help="The newest on top, not at the end."
)
@reading_options(["text", "jsonl", "json", "csv", "raw"])
@click.pass_context
def search(ctx: click.Context, asking: Asking, query: Sequence[str], limit: int, newest_first: bool) -> None:
    """Find records, and print them like a log: the newest last.

    QUERY is in the query language, such as: timeout service:billing. A QUERY that begins with - follows --.
    Exits with 0 when something was found, 1 when nothing was, 2 on errors.

    All records (--limit 0), or --newest-first, are printed as they come; else the last page is awaited first.
    """
    params = asking.params(query) | {"order": "newest" if limit or newest_first else "oldest"}
    pages = _limited(asking.client(), params, limit)
    if limit and not newest_first:
        pages = iter([_turned(pages)])
    form, count, more = record_form(asking), 0, False
    with Screen(pager=asking.pager, at_end=bool(limit) and not newest_first) as screen:
        screen.write(form.head)
        for rows, more in pages:  # noqa: B007 -- the last page says whether there is more
            count += len(rows)
            screen.write(form.page(rows))
        screen.write(form.tail())
    if more:
        note(f"... older records match: --limit {limit * 10}, or 0 for all")
    if not count:
        if sys.stdout.isatty():
            note("no record matches")
        ctx.exit(1)


Rows = list[dict[str, Any]]


def _limited(client: Client, params: dict[str, str], limit: int) -> Iterator[tuple[Rows, bool]]:
    """Yield pages of at most `limit` records in all, 0 for no limit; and whether more would follow the last one."""
    left = limit
    for page in client.pages("/logs", params | {"limit": str(min(limit or PAGE, PAGE))}):
        rows = page.items[:left] if limit else page.items
        left -= len(rows)
        ended = bool(limit) and left == 0
        yield rows, ended and (page.next is not None or len(page.items) > len(rows))
        if ended:
            return


def _turned(pages: Iterator[tuple[Rows, bool]]) -> tuple[Rows, bool]:
    """Gather all pages into one, in the opposite order."""
    gathered: Rows = []
    more = False
    for rows, more in pages:  # noqa: B007 -- the last page says whether there is more
        gathered.extend(rows)
    gathered.reverse()
    return gathered, more
