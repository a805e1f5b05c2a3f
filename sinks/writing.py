"""One write: a transaction that puts records into `logs` and rejects into `quarantine`."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import asyncpg
import polars as pl

from logagg.protocols.columns import Records, from_records, to_records
from logagg.protocols.record import Record, Reject
from logagg.sinks import copying, frames
from logagg.sinks.batches import Stats
from logagg.sinks.errors import UNENCODABLE, is_poison, reason
from logagg.sinks.frames import FULL

# FOR SHARE: who closes a batch (UPDATE) waits for the writes into it, and a write that comes later sees it closed.
_OURS = "select pg_current_xact_id()::text from batches where batch = $1 and owner = $2 and closed_at is null for share"
_XID = "select pg_current_xact_id()::text"


#: Waits for other transactions with these keys under way, and finds what they came to; in order, so that none waits in
#: a circle.
_KEYS = """with new as (insert into keys (key) select unnest($1::bytea[]) order by 1 on conflict do nothing returning 1)
    select count(*) from new"""


class BatchLost(Exception):
    """The batch is closed: its owner was taken for dead."""


class Repeated(Exception):
    """A write with one of these keys is in already."""


class Written(NamedTuple):
    """What became of a write."""

    stored: int
    #: Records that PostgreSQL refuses: they are in the quarantine instead.
    quarantined: list[Reject]
    #: Which they are: their positions among the records of the write.
    refused: list[int]
    #: A write with one of the keys was in already; nothing of this one is.
    repeated: bool = False


class Sifted(NamedTuple):
    """Records that went in, what is known of them, and those that never will."""

    frame: pl.DataFrame
    stats: Stats
    poison: list[Reject]


def columns_of(records: Records) -> tuple[pl.DataFrame, dict[int, Reject]]:
    """Return records as columns, without those that are none, by position: a broken time, half of a character."""
    if isinstance(records, pl.DataFrame):
        return records, {}
    try:
        return from_records(records), {}
    except (*UNENCODABLE, pl.exceptions.PolarsError) as error:
        if len(records) == 1:
            return from_records([]), {0: poison(records[0], reason(error))}
    half = len(records) // 2
    left, bad = columns_of(records[:half])
    right, more = columns_of(records[half:])
    return left.vstack(right), bad | {half + place: reject for place, reject in more.items()}


_NONE = frames.empty(list(FULL))


def nothing() -> Sifted:
    """Return what a write that failed has put in."""
    return Sifted(_NONE, Stats(), [])


class Doubt(Exception):
    """The connection was lost in COMMIT: whether the transaction is in, only the server knows."""

    def __init__(self, xid: str, sifted: Sifted) -> None:
        super().__init__(f"connection lost in COMMIT of transaction {xid}")
        self.xid = xid
        self.sifted = sifted


class Place(NamedTuple):
    """Where a write goes."""

    #: None for a write without records.
    batch: int | None
    owner: int
    #: See `Store.write`.
    keys: Sequence[bytes] = ()


async def put(con: asyncpg.Connection, place: Place, frame: pl.DataFrame, rejects: Sequence[Reject]) -> Sifted:
    """Write all in one transaction; return when it is committed.

    Raises BatchLost, Repeated, Doubt, and what asyncpg raises.
    """
    clean = [_clean(r) for r in rejects]
    preparing = asyncio.create_task(_prepare(frame, place.batch))  # while the server begins
    try:
        return await _transact(con, place, clean, _copy_all(con, frame, preparing))
    except Exception as error:
        if not frame.height or not is_poison(error):
            raise
    finally:
        preparing.cancel()
        await asyncio.gather(preparing, return_exceptions=True)
    return await _transact(con, place, clean, _sift(con, place.batch, frame))


async def _prepare(frame: pl.DataFrame, batch: int | None) -> tuple[copying.Encoded, Stats]:
    few = frame.height <= copying.FEW  # then a thread costs more than it spares the event loop
    return _prepared(frame, batch) if few else await asyncio.to_thread(_prepared, frame, batch)


def _prepared(frame: pl.DataFrame, batch: int | None) -> tuple[copying.Encoded, Stats]:
    number = pl.Series("batch", [batch], dtype=pl.Int64).new_from_index(0, frame.height)
    return copying.encode(pl.DataFrame([*frame, number])), Stats.of(frame)


async def _transact(
    con: asyncpg.Connection, place: Place, rejects: list[Reject], copy: Coroutine[Any, Any, Sifted]
) -> Sifted:
    batch, owner, keys = place
    with contextlib.closing(copy):  # never awaited when what comes before fails
        transaction = con.transaction()
        await transaction.start()
        try:
            xid = await con.fetchval(_XID) if batch is None else await con.fetchval(_OURS, batch, owner)
            if xid is None:
                raise BatchLost
            if keys and await con.fetchval(_KEYS, keys) < len(keys):
                raise Repeated
            sifted = await copy
            await _quarantine(con, rejects + sifted.poison)
        except BaseException:
            with contextlib.suppress(Exception):  # the connection may be what failed
                await transaction.rollback()
            raise
        try:
            await transaction.commit()
        except Exception as error:
            raise Doubt(xid, sifted) from error
    return sifted


async def outcome(con: asyncpg.Connection, doubt: Doubt) -> bool | None:
    """Ask the server whether a transaction is in: True, False, or None while it still runs.

    After a crash of the server a number that never reached its disk is given to another transaction, so "committed" is
    believed only when the first row is there. The two questions need a snapshot each.
    """
    try:
        status = await con.fetchval("select pg_xact_status($1::text::xid8)", doubt.xid)
    except asyncpg.InvalidParameterValueError:  # a number of the future: the server lost the transaction in a crash
        return False
    if status == "in progress":
        return None
    frame = doubt.sifted.frame
    if status != "committed" or not frame.height:
        return bool(status == "committed")
    there = "select exists (select from logs where id = $1 and received_at = $2)"
    return bool(await con.fetchval(there, frame["id"][0], frame["received_at"][0]))


async def _copy_all(
    con: asyncpg.Connection, frame: pl.DataFrame, preparing: Awaitable[tuple[copying.Encoded, Stats]]
) -> Sifted:
    encoded, stats = await preparing
    await copying.send(con, "logs", encoded)
    return Sifted(frame, stats, [])


async def _quarantine(con: asyncpg.Connection, rejects: Sequence[Reject]) -> None:
    if rejects:
        await con.copy_records_to_table("quarantine", records=rejects, columns=Reject._fields)


async def _sift(con: asyncpg.Connection, batch: int | None, frame: pl.DataFrame) -> Sifted:
    """Copy the records in halves until each one that PostgreSQL refuses is found; the others are written."""
    try:
        async with con.transaction():  # a savepoint
            return await _copy_all(con, frame, _prepare(frame, batch))
    except Exception as error:
        if not is_poison(error):
            raise
        if frame.height == 1:
            return Sifted(frame.clear(), Stats(), [poison(to_records(frame)[0], reason(error))])
    half = frame.height // 2
    left, right = await _sift(con, batch, frame[:half]), await _sift(con, batch, frame[half:])
    left.stats.add(right.stats)
    return Sifted(left.frame.vstack(right.frame), left.stats, left.poison + right.poison)


def poison(record: Record, why: str) -> Reject:
    """Make the reject of a record that PostgreSQL refuses: its own bytes, else the whole record as JSON."""
    raw = record.raw
    if not isinstance(raw, bytes):
        raw = json.dumps(record._asdict(), default=str).encode()  # ASCII: escapes keep surrogates and NUL
    return _clean(Reject(record.received_at, "store", str(record.source or ""), why, raw))


def _clean(reject: Reject) -> Reject:
    """Make a reject that always goes in."""
    received = reject.received_at
    if not isinstance(received, datetime) or received.tzinfo is None:
        received = datetime.now(UTC)
    return Reject(received, _text(reject.transport), _text(reject.source), _text(reject.reason), reject.raw)


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def with_poison(written: Written, poison: dict[int, Reject]) -> Written:
    """Add the records that could not become columns, by position, to those that PostgreSQL refused."""
    if not poison:
        return written
    count = written.stored + len(written.refused) + len(poison)
    left = [position for position in range(count) if position not in poison]
    refused = sorted([*poison, *(left[position] for position in written.refused)])
    return Written(written.stored, [*poison.values(), *written.quarantined], refused)
