"""`logagg patterns`: the forms of messages."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import click

from logagg.cli.client import Client, Params, Unreachable
from logagg.cli.counting import OUTPUTS, form_of, print_rows, rows_of, show
from logagg.cli.options import Asking, Whole, examples, reading_options, rfc3339
from logagg.cli.output import Row, local_time, table
from logagg.cli.terminal import Failure, Screen, note, visible

#: Services of a pattern that text output names.
_SERVICES = 3
#: What is looked at without --since.
_RANGE = timedelta(hours=24)
_PIECE = 1 << 18
_COLUMNS = ("pattern", "count", "first_seen", "last_seen", "services")
_CHANGES = ("new", "before", "growth")


@click.command(
    epilog=examples(
        "logagg patterns                                   the last 24 hours",
        "logagg patterns 'level>=error' --since 1h --service billing",
        "logagg patterns --new-since 1h                    what is new, what grew",
        "logagg patterns 'level>=warning' --since today -n 20 -o jsonl",
        "logagg patterns --members -o jsonl > members.jsonl",
    )
)
@click.option(
    "-n",
    "--limit",
    type=Whole(1, 1000),
    default=50,
    metavar="PATTERNS",
    help="So many at most, the most frequent.",
)
@click.option(
    "--new-since", metavar="TIME", help="Mark what is new since then, and compare with as long a time before."
)
@click.option("--members", is_flag=True, help="Print the id of each record and its pattern, of all times and levels.")
@reading_options(OUTPUTS)
def patterns(asking: Asking, query: Sequence[str], limit: int, new_since: str | None, members: bool) -> None:
    """Show the forms of matching messages.

    Messages of one form differ only in what varies, written <*>; the most frequent form comes first. They are of all
    levels unless QUERY or --level says otherwise, and without --since of the last 24 hours; stderr says which.

    With --new-since, CHANGE is "new" for a form that did not occur before, else how many times as often it occurs now.
    """
    client, params = asking.client(), asking.params(query)
    if members:
        if new_since:
            raise click.UsageError("--members and --new-since are two questions: ask one of them")
        _print_members(asking, client, params)
        return
    params = {"q": "*"} | params | {"limit": str(limit)} | _range(asking, params, new_since)
    rows = rows_of(client.get("/logs/patterns", params))
    if asking.output != "text":
        print_rows(asking, form_of(asking, [*_COLUMNS, *(_CHANGES if new_since else ())]), rows)
        return
    columns = ["count", *(["change"] if new_since else []), "last seen", "services", "pattern"]
    show(asking, table(columns, [_shown(row, asking) for row in rows], colour=asking.colour))
    end = local_time(params["end_time"], asking.zone) if "end_time" in params else "now"
    which = " that match QUERY" if query else "" if asking.level else " of all levels"
    level = f" of level {asking.level}" if asking.level else ""
    note(f"... messages{level}{which}, from {local_time(params['start_time'], asking.zone)} to {end}")


def _range(asking: Asking, params: Params, new_since: str | None) -> dict[str, str]:
    """Return the parameters of the range looked at; without --since, 24 hours, or as far back as --new-since."""
    now = datetime.now(UTC)
    fresh = asking.moment("--new-since", new_since, now)
    start = fresh or (asking.moment("--until", asking.until, now) or now) - _RANGE
    return {
        "start_time": params.get("start_time") or rfc3339(start),
        **({"new_since": rfc3339(fresh)} if fresh else {}),
    }


def _shown(row: Row, asking: Asking) -> Row:
    """Return a pattern as the table shows it."""
    services = [str(service) for service in row.get("services") or ()]
    named = ",".join(services[:_SERVICES]) + (f" +{len(services) - _SERVICES}" if len(services) > _SERVICES else "")
    growth = row.get("growth")
    change = "new" if row.get("new") else f"x {growth:.3g}" if isinstance(growth, int | float) else ""
    seen = local_time(row.get("last_seen"), asking.zone)
    return {
        "count": row.get("count"), "change": change, "last seen": seen, "services": named, "pattern": row.get("pattern")
    }  # fmt: skip


def _print_members(asking: Asking, client: Client, params: Params) -> None:
    """Print id and pattern of each record, as they come. Raises Failure when the server left some out."""
    cut = None
    form = form_of(asking, ["id", "pattern"])
    with Screen(pager=asking.pager) as screen:
        text = asking.output == "text"
        screen.write("" if text else form.head)
        for rows in _members(client, params):
            found = [row for row in rows if "id" in row]
            cut = next((str(row["incomplete"]) for row in rows if "incomplete" in row), cut)
            lines = [f"{row['id']}  {visible(str(row.get('pattern')))}\n" for row in found]
            screen.write("".join(lines) if text else form.page(found))
        screen.write("" if text else form.tail())
    if cut:
        raise Failure(f"the answer is not whole: {cut}")


def _members(client: Client, params: Params) -> Iterator[list[Row]]:
    """Yield the lines of the answer, as many as came at once."""
    from http.client import HTTPException

    held = b""
    with client.open("/logs/patterns/members", params) as (response, _):
        try:
            while data := response.read1(_PIECE):
                *lines, held = (held + data).split(b"\n")
                yield [_member(line) for line in lines if line]
        except (OSError, HTTPException) as error:
            raise Unreachable(f"the answer is not whole: it broke off ({error})") from None
    if held:
        raise Unreachable("the answer is not whole: it broke off in a line")


def _member(line: bytes) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise Failure("a line of the answer is no object; is it logagg?")
    return row
