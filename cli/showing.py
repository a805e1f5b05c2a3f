"""`logagg show`: one record in full."""

from collections.abc import Iterator

import click

from logagg.cli.client import Absent
from logagg.cli.context import MOST, context_of
from logagg.cli.options import Printing, Whole, examples, printing_options
from logagg.cli.output import LEVEL_COLOURS, RECORD_FIELDS, Row, flattened, local_time, plain_value
from logagg.cli.printing import OUTPUTS, record_form
from logagg.cli.terminal import Failure, Screen, note, paint, visible

_TIMES = {"timestamp", "received_at"}
_INDENT = "  "
_DIM = "2"


@click.command(
    epilog=examples(
        "logagg show 131073                             every field of it",
        "logagg show 131073 -C 5                        with 5 records before and after",
        "logagg show 131073 -o json | jq .attributes",
        "logagg search timeout -n 1 -t '{id}' | xargs logagg show",
    )
)
@click.argument("number", metavar="ID", type=Whole(0, (1 << 53) - 1))
@click.option(
    "-C",
    "--context",
    type=Whole(0, MOST),
    default=0,
    metavar="RECORDS",
    help="Also so many before and after it, of the same host, service and source.",
)
@printing_options(OUTPUTS)
@click.pass_context
def show(ctx: click.Context, printing: Printing, number: int, context: int) -> None:
    """Show one record in full.

    Prints every field that the record ID has; ids stand in `logagg search -o jsonl`. With --context, prints it as
    `logagg search` does, among its neighbours. Exits with 1 when there is no such record.
    """
    client = printing.client()
    try:
        if context:
            before, record, after = context_of(client, number, context, context)
            rows = [row | {"match": row is record} for row in (*before, record, *after)]
        else:
            rows = [client.get(f"/logs/{number}", {})]
    except Absent:
        note(f"there is no record {number}")
        ctx.exit(1)
    if not all(isinstance(row, dict) for row in rows):
        raise Failure(f"the answer to /logs/{number} is no record; is it logagg?")
    with Screen(pager=printing.pager) as screen:
        if context or printing.output != "text":
            form = record_form(printing, (), None, marked=bool(context))
            screen.write(form.head + form.page(rows) + form.tail())
        else:
            screen.write("".join(_lines(rows[0], printing)))


def _lines(row: Row, printing: Printing) -> Iterator[str]:
    """Yield a line for each field that has a value, the attributes by their paths."""
    fields = [(name, _text(name, row[name], printing)) for name in RECORD_FIELDS if row.get(name) not in (None, {})]
    fields = [(name, text) for name, text in fields if name != "attributes"]
    attributes = row.get("attributes")
    found = list(flattened(attributes)) if isinstance(attributes, dict) else []
    width = max(map(len, [name for name, _ in (*fields, *found)]), default=0)
    for name, text in (*fields, *((path, value) for path, value in found)):
        label = (paint(name, _DIM) if printing.colour else name) + " " * (width - len(name))
        code = LEVEL_COLOURS.get(text, "") if name == "level" and printing.colour else ""
        first, *others = text.split("\n")
        yield f"{label}{_INDENT}{paint(first, code)}\n"
        for line in others:
            yield f"{' ' * width}{_INDENT}{line}\n"


def _text(name: str, value: object, printing: Printing) -> str:
    if name in _TIMES:
        return local_time(value, printing.zone)
    if name == "message":
        return visible(str(value).replace("\r\n", "\n").rstrip("\n"), block=True)
    return plain_value(value)
