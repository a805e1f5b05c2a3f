"""What a question that found nothing may have meant by the names of its fields."""

from collections.abc import Iterator, Set
from difflib import get_close_matches

from logagg.protocols.names import FIELDS
from logagg.query.language import parse
from logagg.query.syntax import COLUMNS, All, And, Field, Node, Not, Or

#: Names that are told of; a query may have any number.
_MOST = 10


def fields_of(query: str) -> set[str]:
    """Return the names of the fields that a query wants something of. Raises QueryError."""
    return {field.name for field in _wanted(parse(query))}


def hint_on(names: Set[str]) -> str:
    """Say which of these names are no columns, but read like one; empty when none does."""
    found = ((name, _meant(name.lower())) for name in sorted(names - COLUMNS))
    told = [
        f"{name} is no column, so an attribute was looked for; did you mean {meant}?" for name, meant in found if meant
    ]
    return " ".join(told[:_MOST])


def _wanted(node: Node) -> Iterator[Field]:
    if isinstance(node, And | Or):
        for part in node.parts:
            yield from _wanted(part)
    elif not isinstance(node, All | Not) and node.field:
        yield node.field


def _meant(name: str) -> str | None:
    for column, names in FIELDS.items():  # what senders call a column
        if name in map(str.lower, names):
            return column
    close = get_close_matches(name, COLUMNS, n=1, cutoff=0.7)
    return close[0] if close else None
