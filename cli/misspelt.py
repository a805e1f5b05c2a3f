"""What a question that found nothing may have meant by the names of its fields."""

from collections.abc import Sequence, Set

from logagg.cli.highlight import terms_of
from logagg.cli.terminal import note, visible


def note_misspelt(query: Sequence[str]) -> None:
    """Say on stderr which fields of a query are no columns, but read like one."""
    note_no_columns(terms_of(" ".join(query)).fields)


def note_no_columns(fields: Set[str]) -> None:
    """Say on stderr which of these are no columns, but read like one."""
    if not fields:
        return
    from logagg.query.syntax import COLUMNS

    for name in sorted(fields - COLUMNS):
        if meant := _meant(name.lower(), COLUMNS):
            note(f"{visible(name)} is no column, so an attribute was looked for; did you mean {meant}?")


def _meant(name: str, columns: frozenset[str]) -> str | None:
    from difflib import get_close_matches

    from logagg.protocols.names import FIELDS

    for column, names in FIELDS.items():  # what senders call a column
        if name in map(str.lower, names):
            return column
    close = get_close_matches(name, columns, n=1, cutoff=0.7)
    return close[0] if close else None
