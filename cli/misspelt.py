"""What a query that found nothing may have meant by the names of its fields."""

from collections.abc import Sequence
from difflib import get_close_matches

from logagg.cli.highlight import terms_of
from logagg.cli.terminal import note, visible
from logagg.protocols.names import FIELDS
from logagg.query.syntax import COLUMNS

#: What senders call a column.
_ALIASES = {name.lower(): column for column, names in FIELDS.items() for name in names}


def note_misspelt(query: Sequence[str]) -> None:
    """Say on stderr which fields of a query are no columns, but read like one."""
    for name in sorted(terms_of(" ".join(query)).fields - COLUMNS):
        if meant := _meant(name.lower()):
            note(f"{visible(name)} is no column, so an attribute was looked for; did you mean {meant}?")


def _meant(name: str) -> str | None:
    close = get_close_matches(name, COLUMNS, n=1, cutoff=0.7)
    return _ALIASES.get(name) or (close[0] if close else None)
