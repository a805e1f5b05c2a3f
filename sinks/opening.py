"""How a store gets to its database: the schema, its number, the partitions around today, its connections."""

import contextlib
from collections.abc import Iterator

import asyncpg

from logagg.sinks import owners, partitions, schema
from logagg.sinks.connections import Connections
from logagg.sinks.errors import StoreError, StoreUnavailable, reason, unavailable
from logagg.sinks.locks import MAINTENANCE, locked

_LASTING = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.exceptions.ClientConfigurationError,
)


async def connect(connections: Connections, owner: owners.Owner) -> None:
    """Connect; all is as before when it raises: StoreUnavailable for what passes, StoreError for what does not."""
    with _lasting(), unavailable():
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(connections.close)
            stack.push_async_callback(owner.leave)
            owner.number = await _prepare(connections)
            await owner.live()
            await connections.open()
            stack.pop_all()


async def _prepare(connections: Connections) -> int:
    """Make the database ready for a store; return the number of its owner."""
    async with connections.for_a_while() as con:
        await schema.migrate(con)
        number: int = await con.fetchval("select nextval('owners')::int")
        async with locked(con, MAINTENANCE):
            await partitions.ensure(con, await con.fetchval("select now()"))
            await owners.adopt_orphans(con, number)
        return number


@contextlib.contextmanager
def _lasting() -> Iterator[None]:
    """Tell what no waiting mends: a refused login, a database that is not there, a URL that is none."""
    try:
        yield
    except StoreUnavailable as error:
        if isinstance(error.__cause__, _LASTING):
            raise StoreError(reason(error.__cause__)) from error
        raise
    except ValueError as error:  # what asyncpg finds in an address, such as a port that is no number
        raise StoreError(f"not an address of PostgreSQL: {error}") from error
