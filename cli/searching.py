"""`logagg search`."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from logagg.cli.client import Client
from logagg.cli.context import MOST, groups
from logagg.cli.options import Asking, Whole, adding, examples, reading_options
from logagg.cli.printing import OUTPUTS, record_form, template_option
from logagg.cli.tailing import MOST_BACKLOG, print_tail
from logagg.cli.terminal import Screen, note

#: Records asked for at once.
PAGE = 1000

_context_options = adding(
    *(
        click.option(short, f"--{name}", type=Whole(0, MOST), metavar="RECORDS", help=said)
        for short, name, said in (
            ("-B", "before", "Also so many records before each one found, of the same host, service and source."),
            ("-A", "after", "Also so many after each one."),
            ("-C", "context", "Also so many before and after each one."),
        )
    )
)


@dataclass(frozen=True)
class Wanted:
    """How much of what matches, and what about it."""

    limit: int
    newest_first: bool
    oldest: bool
    count: bool
    follow: bool
    before: int
    after: int

    @property
    def order(self) -> str:
        """The order in which the server is asked."""
        return "oldest" if self.oldest or not (self.limit or self.newest_first) else "newest"

    @property
    def turned(self) -> bool:
        """Whether the newest come first and are to be printed last."""
        return self.order == "newest" and not self.newest_first

    def check(self, asking: Asking) -> None:
        """Raise UsageError for what cannot be had together."""
        context = bool(self.before or self.after)
        if self.oldest and self.newest_first:
            raise click.UsageError("--oldest and --newest-first are two orders: give one of them")
        if self.follow and (self.newest_first or self.oldest or self.count or context or asking.until):
            raise click.UsageError("--follow goes on with what comes: no --until, --count, --context or other order")
        if self.follow and not 0 < self.limit <= MOST_BACKLOG:
            raise click.UsageError(f"--follow begins with the latest records: --limit is 1 to {MOST_BACKLOG:,} then")
        if context and (self.count or not self.limit):
            raise click.UsageError("records with context are gathered first: no --count, and a --limit that is not 0")


@click.command(
    epilog=examples(
        "logagg search                                  the latest 100 records",
        "logagg search timeout --since 15m --level error",
        "logagg search 'service:billing \"connection refused\" -retry'",
        "logagg search timeout -C 3                     with 3 records before and after",
        "logagg search timeout --follow                 and go on with what comes",
        "logagg search level:error --since today --count",
        "logagg search --since yesterday --until today -n 0 -o jsonl > yesterday.jsonl",
        "logagg search -t '{timestamp} {attributes.status:>5} {message:.80}'",
    )
)
@click.option(
    "-n", "--limit", type=Whole(0), default=100, metavar="RECORDS", help="So many at most, the latest; 0: all."
)
@click.option("--oldest", is_flag=True, help="The oldest, not the latest.")
@click.option(
    "-r", "--newest-first", "--reverse", "newest_first", is_flag=True, help="The newest on top, not at the end."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with records as they come, until Ctrl-C.")
@_context_options
@click.option("--count", is_flag=True, help="Print only how many match, all of them.")
@template_option
@reading_options(OUTPUTS)
@click.pass_context
def search(
    ctx: click.Context,
    /,
    asking: Asking,
    query: Sequence[str],
    template: str | None,
    before: int | None,
    after: int | None,
    context: int | None,
    **options: Any,
) -> None:
    """Find records, and print them like a log: the newest last.

    QUERY is in the query language, such as: timeout service:billing. A QUERY that begins with - follows --.
    Exits with 0 when something was found, 1 when nothing was, 2 on errors.

    All records (--limit 0), --oldest and --newest-first are printed as they come; else the last page is awaited first.
    With context, groups are apart by a line of --, and what was found is marked: by > in text, by "match" elsewhere.
    """
    before, after = (context if side is None else side for side in (before, after))
    wanted = Wanted(**options, before=before or 0, after=after or 0)
    wanted.check(asking)
    with_context = bool(wanted.before or wanted.after)
    form = record_form(asking, query, template, marked=with_context)
    client, params = asking.client(), asking.params(query)
    if wanted.follow:
        print_tail(client, params | {"backlog": str(wanted.limit)}, form)
        return
    if wanted.count:
        found = client.count(params)
        with Screen(pager=False) as screen:
            screen.write(f"{found}\n")
        ctx.exit(0 if found else 1)
    pages = _Pages(client, params | {"order": wanted.order}, wanted.limit)
    parts = _grouped(client, pages, wanted) if with_context else _turned(pages) if wanted.turned else iter(pages)
    with Screen(pager=asking.pager, at_end=wanted.turned) as screen:
        screen.write(form.head)
        for at, rows in enumerate(parts):
            screen.write((form.separator if with_context and at else "") + form.page(rows))
        screen.write(form.tail())
    _say(ctx, pages, wanted)


Rows = list[dict[str, Any]]


class _Pages:
    """Pages of at most `limit` records in all, 0 for no limit; afterwards, how many came and whether there are more."""

    def __init__(self, client: Client, params: dict[str, str], limit: int) -> None:
        self._client = client
        self._params = params | {"limit": str(min(limit or PAGE, PAGE))}
        self._limit = limit
        self.count = 0
        self.more = False

    def __iter__(self) -> Iterator[Rows]:
        for page in self._client.pages("/logs", self._params):
            rows = page.items[: self._limit - self.count] if self._limit else page.items
            self.count += len(rows)
            ended = self.count == self._limit != 0
            self.more = ended and (page.next is not None or len(page.items) > len(rows))
            yield rows
            if ended:
                return


def _turned(pages: Iterable[Rows]) -> Iterator[Rows]:
    """Gather all pages into one, in the opposite order."""
    gathered = [row for rows in pages for row in rows]
    gathered.reverse()
    yield gathered


def _grouped(client: Client, pages: Iterable[Rows], wanted: Wanted) -> Iterator[Rows]:
    matches = [row for rows in (_turned(pages) if wanted.turned else pages) for row in rows]
    for group in groups(client, matches, wanted.before, wanted.after):
        yield group[::-1] if wanted.newest_first else group


def _say(ctx: click.Context, pages: _Pages, wanted: Wanted) -> None:
    """Say that there is more, or that there is nothing."""
    if pages.more:
        which = "later" if wanted.oldest else "older"
        note(f"... {which} records match: --limit {wanted.limit * 10}, or 0 for all")
    if not pages.count:
        if sys.stdout.isatty():
            note("no record matches")
        ctx.exit(1)
