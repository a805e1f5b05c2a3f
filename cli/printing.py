"""The form in which a command prints records, as its options ask."""

import sys
from collections.abc import Sequence

import click

from logagg.cli.options import Printing
from logagg.cli.output import RECORD_FIELDS, Csv, Form, JsonArray, JsonLines, Raw, Text

OUTPUTS = ("text", "jsonl", "json", "csv", "raw")

template_option = click.option(
    "-t", "--template", metavar="TEMPLATE",
    help="Print each record so: '{timestamp} {level:<8} {attributes.user.id} {message}'.",
)  # fmt: skip


def record_form(printing: Printing, query: Sequence[str], template: str | None, *, marked: bool = False) -> Form:
    """Return the form of records that was asked for; `marked` where rows have a `match`."""
    terminal = sys.stdout.isatty()
    highlight = None
    if printing.colour:
        from logagg.cli.highlight import Highlight

        highlight = Highlight(" ".join(query))
    if template is not None:
        if printing.output != "text":
            raise click.UsageError(f"--template and -o {printing.output} are two forms: give one of them")
        from logagg.cli.template import Template

        return Template(template, zone=printing.zone, colour=printing.colour, highlight=highlight)
    match printing.output:
        case "jsonl":
            return JsonLines()
        case "json":
            return JsonArray()
        case "csv":
            return Csv((*RECORD_FIELDS, "match") if marked else RECORD_FIELDS, terminal=terminal)
        case "raw":
            return Raw(terminal=terminal)
        case _:
            return Text(colour=printing.colour, zone=printing.zone, highlight=highlight)
