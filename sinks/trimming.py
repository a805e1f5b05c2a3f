"""Records that are kept shorter or longer than the others, by service or environment.

Nearly every batch has records of many services, so what is over cannot wait for the last of its neighbours: the batch
is written anew without it, under its own number, so that the ids of the others hold, and in one transaction its rows in
`logs` go, too. A batch of which all is over goes as a whole, in `retention`.

A batch remembers in `trimmed` what was taken out of it, so each is read once for each of the times that it comes to.
"""

import asyncio
import hashlib
import time
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple, Self

import asyncpg
import polars as pl

from logagg.sinks import packing, unpacking
from logagg.sinks.batches import Stats
from logagg.sinks.errors import StoreError, reason
from logagg.sinks.frames import PLACE_BITS
from logagg.sinks.retention import before

COLUMNS = ("service", "environment")

_AT = "greatest(received_max, closed_at)"
_BATCHES = f"""
from batches
where packed_at is not null and {_AT} < $1 and {_AT} >= $2 and ($3::text is null or trimmed is distinct from $3)
"""
#: Whether one of the values is among the distinct ones of a batch; unknown ones may be. Empty stands for none.
_CONCERNED = (
    "($4::text[] <> '{}' and coalesce(array_replace(services, null, '') && $4, true))"
    " or ($5::text[] <> '{}' and coalesce(array_replace(environments, null, '') && $5, true))"
)
_FOUND = f"select batch {_BATCHES} and ({_CONCERNED}) order by batch"
_PASS = f"update batches set trimmed = $3 where batch in (select batch {_BATCHES} and not ({_CONCERNED}))"  # noqa: S608
_READ = """
select head, body, checksums, packed_at, received_min, received_max
from batches where batch = $1 and packed_at is not null
"""
#: Its version is its packed_at, so that has to be another one, whatever the clock says.
_WRITE = """
update batches set head = $3, body = $4, filter = $5, summary = $6, checksums = $7, trimmed = coalesce($8, trimmed),
    count = $9, ts_min = $10, ts_max = $11, received_min = $12, received_max = $13,
    services = $14, hosts = $15, environments = $16,
    packed_at = greatest(now(), packed_at + interval '1 microsecond')
where batch = $1 and packed_at = $2
"""
_UNCHANGED = "update batches set trimmed = $3 where batch = $1 and packed_at = $2"
_DELETE = "delete from batches where batch = $1 and packed_at = $2"
_DELETE_ROWS = """
delete from logs l using unnest($5::bigint[]) as gone (id)
where l.id = gone.id and l.id between $1 and $2 and l.received_at between $3 and $4
"""


class Keep(NamedTuple):
    """How long records of a service, or of an environment, are kept."""

    #: One of COLUMNS.
    column: str
    #: Empty for the records that have none.
    value: str
    span: timedelta

    @classmethod
    def of(cls, what: str, span: timedelta) -> Self:
        """Read `service=NAME` or `environment=NAME`."""
        column, _, value = what.partition("=")
        return cls(column, value, span)


class Terms(NamedTuple):
    """How long records are kept: as the first of `keeps` says that fits, else as `others`, None for ever."""

    others: timedelta | None
    keeps: tuple[Keep, ...] = ()

    @property
    def longest(self) -> timedelta | None:
        """How long the last of a batch are kept; None for ever."""
        return None if self.others is None else max([self.others, *(keep.span for keep in self.keeps)])

    @property
    def ages(self) -> list[timedelta | None]:
        """The ages at which something is over, each once, the least first; at the end, None unless there is one."""
        spans = {keep.span for keep in self.keeps} | (set() if self.others is None else {self.others})
        return [*sorted(spans), *([None] if self.others is None else [])]

    def over(self, age: timedelta) -> pl.Expr:
        """Tell of records whether they are kept no longer than this."""
        told = pl.lit(self._all_but_keeps(age))
        for keep in reversed(self.keeps):
            fits = pl.col(keep.column).eq_missing(pl.lit(keep.value or None, pl.String))
            told = pl.when(fits).then(pl.lit(keep.span <= age)).otherwise(told)
        return told

    def digest(self, age: timedelta) -> str:
        """Name what is over at this age."""
        over = [(column, value, span <= age) for column, value, span in self.keeps]
        return hashlib.sha256(repr((self._all_but_keeps(age), over)).encode()).hexdigest()[:16]

    def values(self, column: str, age: timedelta) -> list[str] | None:
        """Return what a batch must have in a column for something of it to be over; None: anything may be."""
        if self._all_but_keeps(age):
            return None
        return [keep.value for keep in self.keeps if keep.column == column and keep.span <= age]

    def _all_but_keeps(self, age: timedelta) -> bool:
        return self.others is not None and self.others <= age


class Trimmed(NamedTuple):
    """What was taken out, or would be."""

    batches: int = 0
    records: int = 0
    #: Batches that could not be written anew, and why.
    errors: dict[int, str] = {}  # noqa: RUF012 - never changed


async def trim(
    con: asyncpg.Connection,
    terms: Terms,
    now: datetime,
    *,
    seconds: float = float("inf"),
    without: Collection[int] = (),
    remember: bool = True,
    dry_run: bool = False,
) -> Trimmed:
    """Take what is over out of the packed batches that keep something else, for at most about so many seconds.

    Batches in `without` are left alone. Without `remember` the batches do not note that it was done: for terms that
    are not those of the settings. Raises what asyncpg raises.
    """
    end = time.monotonic() + seconds
    batches = records = 0
    errors: dict[int, str] = {}
    for age, next_age in pairwise(terms.ages) if terms.keeps else ():
        assert age is not None  # noqa: S101 - only the last is
        digest = terms.digest(age) if remember and not dry_run else None
        for number in await _candidates(con, terms, now, age, next_age, digest):
            if number in without:
                continue
            if time.monotonic() > end:
                return Trimmed(batches, records, errors)
            try:
                taken = await _trim(con, number, terms.over(age), digest, dry_run=dry_run)
            except Exception as error:
                if con.is_closed():
                    raise
                errors[number] = str(error) if isinstance(error, StoreError) else f"batch {number}: {reason(error)}"
            else:
                batches, records = batches + bool(taken), records + taken
    return Trimmed(batches, records, errors)


async def _candidates(
    con: asyncpg.Connection, terms: Terms, now: datetime, age: timedelta, next_age: timedelta | None, digest: str | None
) -> Sequence[int]:
    """Return the batches of an age of which something may be over; have those noted of which nothing can be."""
    arguments: list[Any] = [before(now, age), before(now, next_age or timedelta.max), digest]
    services, environments = (terms.values(column, age) for column in COLUMNS)
    everything = "select batch " + _BATCHES + " order by batch"
    if services is None or environments is None:
        return [batch for (batch,) in await con.fetch(everything, *arguments)]
    if digest:
        await con.execute(_PASS, *arguments, services, environments)
    return [batch for (batch,) in await con.fetch(_FOUND, *arguments, services, environments)]


async def _trim(con: asyncpg.Connection, number: int, over: pl.Expr, digest: str | None, *, dry_run: bool) -> int:
    """Write a batch anew, without what is over; return how many records that were."""
    row = await con.fetchrow(_READ, number)
    if row is None:
        return 0
    *parts, version, received_min, received_max = row
    frame = await asyncio.to_thread(unpacking.records, number, *parts)
    kept, gone = frame.filter(~over), frame.filter(over)["id"].to_list()
    if dry_run:
        return len(gone)
    if not gone:
        if digest:
            await con.execute(_UNCHANGED, number, version, digest)
        return 0
    packed = await asyncio.to_thread(packing.pack, kept) if kept.height else None
    async with con.transaction():
        if packed is None:
            status = await con.execute(_DELETE, number, version)
        else:
            status = await con.execute(_WRITE, number, version, *packed, digest, *_known(kept))
        if status.endswith(" 0"):
            return 0  # somebody else was at it
        await con.execute("set local enable_seqscan = off")
        ids = number << PLACE_BITS, (number + 1 << PLACE_BITS) - 1
        await con.execute(_DELETE_ROWS, *ids, received_min, received_max, gone)
    return len(gone)


def _known(frame: pl.DataFrame) -> list[Any]:
    """Return what `batches` says of records: count, bounds, distinct values."""
    info = Stats.of(frame).info(0, is_open=False)
    distinct = (None if some is None else list(some) for some in (info.services, info.hosts, info.environments))
    return [*info[2:7], *distinct]
