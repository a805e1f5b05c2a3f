"""The advisory locks of logagg in a database: two numbers, the first one ours, the second says what is locked."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

#: First number of all our locks: "logg" in ASCII. With an owner's number it says that this owner lives.
CLASS = 0x6C6F6767
#: Owners count from 1; these are below.
MIGRATION = -1
#: The tasks of maintenance that are quick, one after the other; opening a store waits for it.
MAINTENANCE = -2
#: The others may take long, and have a lock each.
SUMMARIES = -3
PACKING = -4
INDEXES = -5
#: Bringing packed records back as rows, and taking some out of both forms: not at once.
UNPACKING = -6
#: A batch is opened under it: so batches are seen in the order of their numbers.
OPENING = -7
#: Who has it evaluates the alerts, for as long as its connection lasts.
ALERTS = -8


@contextlib.asynccontextmanager
async def locked(connection: Any, number: int, *, wait: bool = True) -> AsyncIterator[bool]:
    """Hold a lock of the session; yield whether it was got, which only without `wait` may be False."""
    if wait:
        await connection.execute("select pg_advisory_lock($1, $2)", CLASS, number)
    elif not await connection.fetchval("select pg_try_advisory_lock($1, $2)", CLASS, number):
        yield False
        return
    try:
        yield True
    finally:
        if not connection.is_closed():
            await connection.execute("select pg_advisory_unlock($1, $2)", CLASS, number)
