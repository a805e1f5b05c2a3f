"""The table `quarantine`: what could not become a record, to be looked at, and removed once it is one after all."""

from datetime import datetime, timedelta
from typing import NamedTuple

import asyncpg

#: The longest head of `Listed`, in bytes.
HEAD = 160

_LIST = """
select id, received_at, transport, source, reason, octet_length(raw) as size, substring(raw for $4) as head
from quarantine
where ($1::text is null or transport = $1) and ($2::text is null or position(lower($2) in lower(reason)) > 0)
order by id desc limit $3
"""
#: The newest entry for which, with all that are newer, there is no room.
_NO_ROOM = """
select max(id) from (
    select id, sum(octet_length(raw) + 200) over (order by id desc) as so_far from quarantine
) newest_first where so_far > $1
"""
#: What goes, and what there is to say of it; the ids only of those that were named.
_CHOSEN = "($1::bigint[] is null or id = any ($1)) and ($2::interval is null or received_at < now() - $2)"
_WOULD_DROP = f"select id, octet_length(raw) as size from quarantine where {_CHOSEN}"  # noqa: S608 - texts of ours
_DROP = f"delete from quarantine where {_CHOSEN} returning id, octet_length(raw) as size"  # noqa: S608 - texts of ours
_DROPPED = """
with gone as ({which})
select count(*), coalesce(sum(size), 0)::bigint, coalesce(array_agg(id) filter (where $1::bigint[] is not null), '{{}}')
from gone
"""
_GET = "select id, received_at, transport, source, reason, raw from quarantine where id = $1"


class Listed(NamedTuple):
    """An entry without its bytes."""

    id: int
    received_at: datetime
    transport: str
    source: str
    reason: str
    #: Bytes in all, and the first `HEAD` of them.
    size: int
    head: bytes


class Entry(NamedTuple):
    """All of an entry: a `Reject` with its id."""

    id: int
    received_at: datetime
    transport: str
    source: str
    reason: str
    raw: bytes


class Dropped(NamedTuple):
    """What went, or would go."""

    entries: int
    #: Bytes.
    size: int
    #: The ids, where they were named.
    named: list[int]


async def listed(
    con: asyncpg.Connection, *, transport: str | None = None, why: str | None = None, limit: int | None = None
) -> list[Listed]:
    """Return entries of this transport, with this text in their reason, in any case; the newest first. None is all."""
    return [Listed(*row) for row in await con.fetch(_LIST, transport, why, limit, HEAD)]


async def numbers(con: asyncpg.Connection) -> list[int]:
    """Return the ids of all entries, the oldest first."""
    return [number for (number,) in await con.fetch("select id from quarantine order by id")]


async def get(con: asyncpg.Connection, number: int) -> Entry | None:
    """Return one entry, None if it is not there."""
    row = await con.fetchrow(_GET, number)
    return Entry(*row) if row else None


async def remove(con: asyncpg.Connection, number: int) -> None:
    """Delete one entry; one that is gone already is no error."""
    await con.execute("delete from quarantine where id = $1", number)


async def limit(con: asyncpg.Connection, before: datetime, size: int | None) -> int:
    """Delete the entries received before a time, and the oldest until all take no more than so many bytes.

    Return how many went. None is no limit of size.
    """
    status = await con.execute("delete from quarantine where received_at < $1", before)
    gone = int(status.rpartition(" ")[2])
    # What was deleted is room for others, and no smaller table: only one that is too large is looked through.
    if size is not None and await con.fetchval("select pg_total_relation_size('quarantine')") > size:
        newest = await con.fetchval(_NO_ROOM, size)
        status = await con.execute("delete from quarantine where id <= $1", newest or 0)
        gone += int(status.rpartition(" ")[2])
    return gone


async def drop(
    con: asyncpg.Connection, chosen: list[int] | None, older_than: timedelta | None, *, dry_run: bool = False
) -> Dropped:
    """Delete these entries, None being all, of those that were received so long ago; or only tell which they are."""
    return Dropped(*await con.fetchrow(_DROPPED.format(which=_WOULD_DROP if dry_run else _DROP), chosen, older_than))
