"""What is older than it is kept: the rows of days whose batches are packed, and batches past `retention`.

A limit of size is one of age, too: that of the oldest for which there is room.

Rows go by whole UTC days of `received_at`, when no batch needs them any more: all that have rows in that day are packed
or gone. A day without rows stays while it would be made again. Rows of no day's partition, in `logs_default`, go by the
same rule, one by one. A batch goes as a whole, when both its records and the batch itself are older than `retention`;
so a clock that jumped back drops nothing young.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import asyncpg

from logagg.sinks.frames import LAST_PLACE, PLACE_BITS
from logagg.sinks.partitions import BACK, DAY, PATIENCE, another_time, day_of, names
from logagg.sinks.reading import PACKED_SIZE

#: Batches deleted by one statement: each may have megabytes beside its row.
_PIECE = 200
#: How long a write with a key that is in already is known for one that comes again.
KEYS_KEPT = timedelta(days=7)
_EPOCH = datetime(1, 1, 1, tzinfo=UTC)

_OLD = "b.closed_at is not null and greatest(b.received_max, b.closed_at) < $1"
_COUNT_OLD = f"""
select count(*), coalesce(sum(count), 0)::bigint, coalesce(sum({PACKED_SIZE}), 0)::bigint from batches b where {_OLD}
"""  # noqa: S608 - texts of ours
_DELETE_OLD = f"""
with old as (
    delete from batches where batch in (select batch from batches b where {_OLD} order by batch limit {_PIECE})
    returning count
)
select count(*), coalesce(sum(count), 0)::bigint from old
"""  # noqa: S608 - texts of ours
#: Batches whose rows between two times are all there is of them. An open one does not say what times it has.
_NEED_ROWS = f"""
select batch from batches b
where packed_at is null and not coalesce({_OLD}, false)
    and (closed_at is null or received_min is null or received_max is null
        or (received_min < $3 and received_max >= $2))
    and exists (select from {{table}} l where l.id between b.batch << 17 and (b.batch << 17) + 131071 offset 0)
"""  # noqa: S608 - texts of ours
_STRAY = f"""
from logs_default l
where received_at < $2
    and not exists (
        select from batches b where b.batch = l.batch and packed_at is null and not coalesce({_OLD}, false)
    )
    and not exists (select from kept_days where day = (received_at at time zone 'UTC')::date and keep_until > $3)
"""  # noqa: S608 - texts of ours
#: The newest of the packed batches for which, with all that are newer, there is no room.
_NO_ROOM = f"""
select max(at) from (
    select at, sum(size) over (order by at desc, batch desc) as so_far
    from (
        select batch, greatest(received_max, closed_at) as at, {PACKED_SIZE} as size
        from batches where packed_at is not null
    ) packed
) newest_first where so_far > $1
"""  # noqa: S608 - texts of ours
#: Records older than $1, of a service or environment where $2 names one, that no packed batch holds yet.
_WAITING = f"""
select b.closed_at is null, count(distinct b.batch), count(*)
from batches b join logs l on l.id between b.batch << {PLACE_BITS} and (b.batch << {PLACE_BITS}) + {LAST_PLACE}
where b.packed_at is null and l.received_at < $1
    and ($2::text is null or l.{{column}} is not distinct from nullif($2, ''))
group by 1
"""  # noqa: S608 - numbers of ours
_ANY = "select exists (select from {table})"
_KEPT_DAYS = "select day from kept_days where keep_until > $1"


class Dropped(NamedTuple):
    """What was older than it is kept."""

    #: Partitions: days whose rows went.
    partitions: tuple[str, ...] = ()
    #: Partitions as old that stayed, and how many batches must be packed before they may go; 0: it was in use, or
    #: something of the user's depends on it.
    kept: dict[str, int] = {}  # noqa: RUF012 - never changed
    #: Rows that stood in no day's partition.
    rows: int = 0
    #: Batches past `retention`, and the records in them.
    batches: int = 0
    records: int = 0


class Due(NamedTuple):
    """What `drop_expired` would drop now."""

    batches: int
    records: int
    #: Bytes of the packed forms of these batches, and of the partitions that would go.
    packed_bytes: int
    rows_bytes: int
    #: Partitions, and how many batches must be packed before each may go.
    days: dict[str, int]
    #: Rows that stand in no day's partition.
    rows: int


class Waiting(NamedTuple):
    """Batches, and how many records of them are old enough."""

    batches: int = 0
    records: int = 0


class Border(NamedTuple):
    """The times before which things are old."""

    now: datetime
    #: Of batches; that of rows is the start of a day.
    batches: datetime
    rows: datetime


def border(now: datetime, rows_retention: timedelta, retention: timedelta | None) -> Border:
    """Return what is old. Rows are not kept longer than `retention`; None keeps batches for ever."""
    batches = _EPOCH if retention is None else before(now, retention)
    rows = max(batches, before(now, rows_retention)).astimezone(UTC)
    return Border(now, batches, datetime.combine(rows, time(), UTC))


async def within(
    con: asyncpg.Connection, old: Border, rows_size: int | None = None, packed_size: int | None = None
) -> Border:
    """Return the border at which rows and packed batches take no more than so many bytes, if it is a later one.

    The oldest go first; of the rows whole days, and never today's. None is no limit.
    """
    batches, rows = old.batches, old.rows
    if packed_size is not None and (newest := await con.fetchval(_NO_ROOM, packed_size)):
        batches = max(batches, newest + timedelta(microseconds=1))
    if rows_size is not None:
        left = rows_size
        for name in sorted(filter(day_of, await names(con)), reverse=True):
            left -= await con.fetchval("select pg_total_relation_size(to_regclass($1))", name)
            day = day_of(name)
            if left < 0 and day and day < old.now.astimezone(UTC).date():
                rows = max(rows, datetime.combine(day, time(), UTC) + DAY)
                break
    return Border(old.now, batches, max(rows, datetime.combine(batches.astimezone(UTC), time(), UTC)))


def before(now: datetime, span: timedelta) -> datetime:
    """Return the time so long ago; the first there is for a longer span than there are years."""
    try:
        return now - span
    except OverflowError:
        return _EPOCH


async def due(con: asyncpg.Connection, old: Border) -> Due:
    """Say what `drop_expired` would drop; change nothing."""
    batches, records, packed_bytes = await con.fetchrow(_COUNT_OLD, old.batches)
    days = {name: len(await _needing(con, name, day, old)) for name, day in await _old_days(con, old)}
    size = "select coalesce(sum(pg_total_relation_size(to_regclass(name))), 0)::bigint from unnest($1::text[]) name"
    rows_bytes = await con.fetchval(size, [name for name, needing in days.items() if not needing])
    rows = await con.fetchval(f"select count(*) {_STRAY}", old.batches, old.rows, old.now)
    return Due(batches, records, packed_bytes, rows_bytes, days, rows)


async def waiting(
    con: asyncpg.Connection, end: datetime, column: str = "service", value: str | None = None
) -> tuple[Waiting, Waiting]:
    """Return the open batches with records received before a time, and those that are closed and not packed.

    With a value, only records that have it in this column count, '' for those that have none.
    """
    async with con.transaction():
        await con.execute("set local enable_seqscan = off")  # of the rows, once a batch
        rows = await con.fetch(_WAITING.format(column=column), end, value)
    found = {is_open: Waiting(batches, records) for is_open, batches, records in rows}
    return found.get(True, Waiting()), found.get(False, Waiting())


async def drop_expired(con: asyncpg.Connection, old: Border) -> Dropped:
    """Drop what is old."""
    batches = records = 0
    while True:
        count, of_them = await con.fetchrow(_DELETE_OLD, old.batches)
        batches, records = batches + count, records + of_them
        if count < _PIECE:
            break
    dropped: list[str] = []
    kept: dict[str, int] = {}
    for name, day in await _old_days(con, old):
        if needing := len(await _needing(con, name, day, old)):
            kept[name] = needing
        elif await _drop(con, name, day, old):
            dropped.append(name)
        else:
            kept[name] = 0
    status = await con.execute(f"delete {_STRAY}", old.batches, old.rows, old.now)
    await con.execute("delete from kept_days where keep_until <= $1", old.now)
    await con.execute("delete from keys where written_at < $1", old.now - KEYS_KEPT)
    return Dropped(tuple(dropped), kept, int(status.rpartition(" ")[2]), batches, records)


async def _old_days(con: asyncpg.Connection, old: Border) -> list[tuple[str, date]]:
    keep = {day for (day,) in await con.fetch(_KEPT_DAYS, old.now)}
    days = [(name, day_of(name)) for name in sorted(await names(con))]
    past = [(name, day) for name, day in days if day and day < old.rows.date() and day not in keep]
    made = old.now.astimezone(UTC).date() - BACK * DAY  # and those after it: dropped empty, they would be made again
    return [(name, day) for name, day in past if day < made or await con.fetchval(_ANY.format(table=name))]


async def _needing(con: asyncpg.Connection, name: str, day: date, old: Border) -> list[int]:
    """Return the batches that need the rows of a partition."""
    first = datetime.combine(day, time(), UTC)
    async with con.transaction():
        await con.execute("set local enable_seqscan = off")  # of the partition's rows, once a batch
        rows = await con.fetch(_NEED_ROWS.format(table=name), old.batches, first, first + DAY)
        return [batch for (batch,) in rows]


async def _drop(con: asyncpg.Connection, name: str, day: date, old: Border) -> bool:
    """Drop a day's partition, unless somebody has come to need it; return whether it is gone."""
    with another_time():
        async with con.transaction():
            await con.execute(PATIENCE)
            # Dropping a partition locks the whole table for a moment. From here on no row comes into it.
            await con.execute("lock table only logs in access exclusive mode")
            if day in {day for (day,) in await con.fetch(_KEPT_DAYS, old.now)} or await _needing(con, name, day, old):
                return False
            await con.execute(f"drop table {name}")
        return True
    return False
