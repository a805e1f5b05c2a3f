"""Records with their neighbours, as grep shows them: groups, of which those that touch or overlap are one.

The neighbours of a record are those of the same host, service and source, by time.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from logagg.cli.client import Client
from logagg.cli.terminal import Failure

Row = dict[str, Any]

#: Neighbours on each side; one less than the server gives, for one more tells whether groups touch.
MOST = 999


def context_of(client: Client, number: int, before: int, after: int) -> tuple[list[Row], Row, list[Row]]:
    """Return what stands before a record, the record, and what stands after it. Raises Failure."""
    path = f"/logs/{number}/context"
    found = client.get(path, {"before": str(before), "after": str(after)})
    if not isinstance(found, dict) or not isinstance(found.get("record"), dict):
        raise Failure(f"the answer to {path} has no record; is it logagg?")
    return found.get("before") or [], found["record"], found.get("after") or []


def groups(client: Client, matches: Iterable[Row], before: int, after: int) -> Iterator[list[Row]]:
    """Yield groups of records, oldest first in each; `match` says which of them were found, and which stand about them.

    The groups come in the order of their first match. Matches may come in either order of time.
    """
    made: list[dict[int, Row]] = []
    latest: dict[tuple[object, ...], dict[int, Row]] = {}
    for match in matches:
        earlier, record, later = context_of(client, match["id"], before + 1, after + 1)
        stream = tuple(record.get(name) for name in ("host", "service", "source"))
        group = latest.get(stream, {})
        # What is one further away is not shown; it only tells whether this touches the group before.
        touching = {row["id"] for row in (*earlier, record, *later)} & group.keys()
        if not touching:
            group = latest[stream] = {}
            made.append(group)
        shown = (*earlier[-before:], *later[:after]) if before else later[:after]
        for row in shown:
            group.setdefault(row["id"], row | {"match": False})
        group[record["id"]] = record | {"match": True}
    for group in made:
        yield sorted(group.values(), key=lambda row: (row["timestamp"], row["id"]))
