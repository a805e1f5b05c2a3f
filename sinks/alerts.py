"""The table of alerts: how they stand. One daemon of a database has it in hand; the others may look."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import asyncpg
import orjson

from logagg.sinks.connections import Connections
from logagg.sinks.errors import unavailable
from logagg.sinks.locks import ALERTS, locked

_ALL: Final = """
select name, firing, extract(epoch from since)::float8, value, extract(epoch from checked_at)::float8, waiting::text
from alerts
"""
_SAVE: Final = """
insert into alerts (name, firing, since, value, checked_at, waiting) values ($1, $2, $3, $4, $5, $6)
on conflict (name) do update set firing = excluded.firing, since = excluded.since, value = excluded.value,
    checked_at = excluded.checked_at, waiting = excluded.waiting
"""


class State(NamedTuple):
    """How one alert stands."""

    name: str
    firing: bool
    #: When it began to fire, or ceased to.
    since: datetime
    #: Records, seconds of silence, or new patterns; None for a silence of what was not seen yet.
    value: float | None
    checked_at: datetime
    #: Messages that were not taken yet, the oldest first.
    waiting: tuple[dict[str, Any], ...] = ()


class Held:
    """The table, while no other daemon has it."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._turn = asyncio.Lock()

    async def load(self, names: Collection[str]) -> dict[str, State]:
        """Return what is known of these by name, and forget all others."""
        with unavailable():
            async with self._turn:
                await self._connection.execute("delete from alerts where name <> all ($1::text[])", list(names))
                return {state.name: state for state in map(_state, await self._connection.fetch(_ALL))}

    async def save(self, state: State) -> None:
        """Write it down. Raises StoreUnavailable, also when another daemon may have the table by now."""
        with unavailable():
            async with self._turn:
                await self._connection.execute(_SAVE, *state[:-1], orjson.dumps(state.waiting).decode())

    async def ours(self) -> None:
        """Return when the table is still ours. Raises StoreUnavailable."""
        with unavailable():
            async with self._turn:
                await self._connection.execute("select 1")


class Alerts:
    """The table of alerts. All methods raise StoreUnavailable."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[Held | None]:
        """Take the table in hand; None when another daemon has it."""
        with unavailable():
            async with self._connections.for_a_while() as con, locked(con, ALERTS, wait=False) as ours:
                yield Held(con) if ours else None

    async def all(self) -> dict[str, State]:
        """Return what is known of all, by name."""
        with unavailable():
            async with self._connections.reader() as con:
                return {state.name: state for state in map(_state, await con.fetch(_ALL))}


def _state(row: Any) -> State:
    name, firing, since, value, checked_at, waiting = row
    since, checked_at = (datetime.fromtimestamp(each, UTC) for each in (since, checked_at))
    return State(name, firing, since, value, checked_at, tuple(orjson.loads(waiting)))
