"""One write: a transaction that puts records into `logs` and rejects into `quarantine`."""

import contextlib
import json
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import asyncpg

from logagg.protocols.record import Record, Reject
from logagg.sinks.batches import Stats
from logagg.sinks.errors import is_poison, reason
from logagg.sinks.frames import ROW, Row

# FOR SHARE: who closes a batch (UPDATE) waits for the writes into it, and a write that comes later sees it closed.
_OURS = "select pg_current_xact_id()::text from batches where batch = $1 and owner = $2 and closed_at is null for share"
_RECEIVED = ROW.index("received_at")
_XID = "select pg_current_xact_id()::text"


class BatchLost(Exception):
    """The batch is closed: its owner was taken for dead."""


class Sifted(NamedTuple):
    """Rows that went in, what is known of them, and those that never will."""

    rows: list[Row]
    stats: Stats
    poison: list[Reject]


def nothing() -> Sifted:
    """Return what a write that failed has put in."""
    return Sifted([], Stats(), [])


class Doubt(Exception):
    """The connection was lost in COMMIT: whether the transaction is in, only the server knows."""

    def __init__(self, xid: str, sifted: Sifted) -> None:
        super().__init__(f"connection lost in COMMIT of transaction {xid}")
        self.xid = xid
        self.sifted = sifted


async def put(
    con: asyncpg.Connection, batch: int | None, owner: int, rows: list[Row], rejects: Sequence[Reject]
) -> Sifted:
    """Write all in one transaction; return when it is committed. Raises BatchLost, Doubt, and what asyncpg raises."""
    clean = [_clean(r) for r in rejects]
    try:
        return await _transact(con, batch, owner, clean, _copy_all(con, rows))
    except Exception as error:
        if not rows or not is_poison(error):
            raise
    return await _transact(con, batch, owner, clean, _sift(con, rows))


async def _transact(
    con: asyncpg.Connection, batch: int | None, owner: int, rejects: list[Reject], copy: Coroutine[Any, Any, Sifted]
) -> Sifted:
    with contextlib.closing(copy):  # never awaited when what comes before fails
        transaction = con.transaction()
        await transaction.start()
        try:
            xid = await con.fetchval(_XID) if batch is None else await con.fetchval(_OURS, batch, owner)
            if xid is None:
                raise BatchLost
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
    if status != "committed" or not doubt.sifted.rows:
        return bool(status == "committed")
    row = doubt.sifted.rows[0]
    there = "select exists (select from logs where id = $1 and received_at = $2)"
    return bool(await con.fetchval(there, row[0], row[_RECEIVED]))


async def _copy_all(con: asyncpg.Connection, rows: list[Row]) -> Sifted:
    stats = Stats.of(rows)
    await _copy(con, rows)
    return Sifted(rows, stats, [])


async def _copy(con: asyncpg.Connection, rows: Sequence[Row]) -> None:
    if rows:
        await con.copy_records_to_table("logs", records=rows, columns=ROW)


async def _quarantine(con: asyncpg.Connection, rejects: Sequence[Reject]) -> None:
    if rejects:
        await con.copy_records_to_table("quarantine", records=rejects, columns=Reject._fields)


async def _sift(con: asyncpg.Connection, rows: list[Row]) -> Sifted:
    """Copy the rows in halves until each one that PostgreSQL refuses is found; the others are written."""
    try:
        async with con.transaction():  # a savepoint
            return await _copy_all(con, rows)
    except Exception as error:
        if not is_poison(error):
            raise
        if len(rows) == 1:
            return Sifted([], Stats(), [_poison(Record(*rows[0][2:]), reason(error))])
    half = len(rows) // 2
    left, right = await _sift(con, rows[:half]), await _sift(con, rows[half:])
    left.stats.add(right.stats)
    return Sifted(left.rows + right.rows, left.stats, left.poison + right.poison)


def _poison(record: Record, why: str) -> Reject:
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
