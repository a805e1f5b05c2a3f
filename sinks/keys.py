"""The keys of what is stored: asked for, and added, by who writes with them; `Store.write` has the rest."""

from collections.abc import Sequence

from logagg.sinks.connections import Connections
from logagg.sinks.errors import unavailable

_KNOWN = "select key from keys where key = any($1::bytea[])"
_ADD = "insert into keys (key) select unnest($1::bytea[]) order by 1 on conflict do nothing"


class Keys:
    """The table of keys. All methods raise StoreUnavailable."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return those that are in. What is being written is not."""
        with unavailable():
            async with self._connections.reader() as con:
                return {row[0] for row in await con.fetch(_KNOWN, keys)}

    async def add(self, keys: Sequence[bytes]) -> None:
        """Put keys in that name something stored; return after COMMIT. Those that are in already stay."""
        with unavailable():
            async with self._connections.writer() as con:
                await con.execute(_ADD, keys)
