"""`logagg tail`, and `logagg search --follow`: records as they come."""

import json
from collections.abc import Sequence
from typing import Any

import click

from logagg.cli.client import Client, Params
from logagg.cli.events import Event, follow
from logagg.cli.options import Asking, Whole, examples, reading_options
from logagg.cli.output import Form
from logagg.cli.printing import OUTPUTS, record_form, template_option
from logagg.cli.terminal import Failure, Screen, note

#: Records that the server gives before the first new one.
MOST_BACKLOG = 10_000


@click.command(
    epilog=examples(
        "logagg tail                                    everything, as it comes",
        "logagg tail 'service:billing level>=warning'",
        "logagg tail -n 0 -o jsonl timeout | jq -r .message",
        "logagg tail -t '{timestamp} {service:<12} {message}'",
    )
)
@click.option(
    "-n",
    "--lines",
    "backlog",
    type=Whole(0, MOST_BACKLOG),
    default=10,
    metavar="RECORDS",
    help="So many of the latest records first.",
)
@template_option
@reading_options(OUTPUTS, ranged=False, paged=False)
def tail(asking: Asking, query: Sequence[str], backlog: int, template: str | None) -> None:
    """Print records as they come, until Ctrl-C.

    Prints the latest records that match QUERY, and then each new one as soon as it is stored, in the order in which
    they are stored. When the connection is lost or the daemon starts again, it says so on stderr, connects again, and
    goes on where it was: nothing is lost, and nothing comes twice.
    """
    form = record_form(asking, query, template)
    print_tail(asking.client(), asking.params(query) | {"backlog": str(backlog)}, form)


def print_tail(client: Client, params: Params, form: Form) -> None:
    """Print what comes until the operator stops it or the reader is gone."""
    with Screen(pager=False) as screen:
        screen.write(form.head)
        try:
            for events in follow(client, "/logs/tail", params):
                if rows := [_record(event) for event in events if event.name == "message"]:
                    screen.write(form.page(rows))
                for event in events:
                    if event.name == "problem":
                        note(f"the server says: {_problem(event)}")
        except KeyboardInterrupt:
            screen.write(form.tail())
            raise


def _record(event: Event) -> dict[str, Any]:
    try:
        record = json.loads(event.data)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise Failure("the server sent an event that is no record; is it logagg?")
    return record


def _problem(event: Event) -> str:
    try:
        return str(json.loads(event.data)["detail"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return event.data
