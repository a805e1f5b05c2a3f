"""Where a tail stands, as text: the position behind a record, and how much of its backlog is still to come."""

import re
from typing import NamedTuple, Self

from logagg.query.errors import QueryError
from logagg.sinks.commits import Position
from logagg.sinks.frames import LAST_PLACE

_NUMBER = "[0-9a-f]{1,9}"
#: The newest batch; how far below it each unfinished one is, and its place; then what is left of the backlog.
_TOKEN = re.compile(rf"1-({_NUMBER})((?:-{_NUMBER}\.{_NUMBER})*)(?:~({_NUMBER})\.([\w-]+))?", re.ASCII)


class Rest(NamedTuple):
    """What is left of a backlog: so many records, behind this cursor of a search for the oldest first."""

    left: int
    cursor: str


class Resume(NamedTuple):
    """Where a tail goes on."""

    position: Position
    rest: Rest | None = None

    def __str__(self) -> str:
        behind = f"~{self.rest.left:x}.{self.rest.cursor}" if self.rest else ""
        return f"1-{self.position.newest:x}{_unfinished(self.position)}{behind}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what `str` wrote. Raises QueryError when it did not."""
        if not (found := _TOKEN.fullmatch(text)):
            raise QueryError("malformed last_event_id; give back the id of the last event as it came")
        newest = int(found[1], 16)
        pairs = [[int(number, 16) for number in each.split(".")] for each in found[2].split("-")[1:]]
        unfinished = {newest - below: place for below, place in pairs}
        if not all(batch > 0 and place <= LAST_PLACE + 1 for batch, place in unfinished.items()):
            raise QueryError("malformed last_event_id; give back the id of the last event as it came")
        return cls(Position(newest, unfinished), Rest(int(found[3], 16), found[4]) if found[3] else None)


def prefix(position: Position, batch: int) -> str:
    """Return the text of the position with a batch up to a place; the place is to follow, in hexadecimal."""
    newest = max(position.newest, batch)
    others = Position(newest, {number: at for number, at in position.unfinished.items() if number != batch})
    return f"1-{newest:x}{_unfinished(others)}-{newest - batch:x}."


def _unfinished(position: Position) -> str:
    return "".join(f"-{position.newest - batch:x}.{place:x}" for batch, place in sorted(position.unfinished.items()))
