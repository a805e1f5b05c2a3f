"""Tokens: who may do what. They are kept as hashes, in the database that all daemons share."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import asyncpg

from logagg.sinks.connections import Connections
from logagg.sinks.errors import StoreError, unavailable

#: What a token may be for: to send records, to read them, and to see how the service itself is.
SCOPES: Final = ("ingest", "query", "admin")
#: How all begin, so that a token is known where it should not stand.
PREFIX: Final = "logagg_"
_BYTES: Final = 32

_ALL: Final = "select name, hash, scopes, services, environments, revoked_at is not null from tokens order by name"
_LISTED: Final = """
select name, scopes, services, environments, created_at, revoked_at from tokens order by created_at, name
"""
_ADD: Final = "insert into tokens (name, hash, scopes, services, environments) values ($1, $2, $3, $4, $5)"
_REVOKE: Final = "update tokens set revoked_at = now() where name = $1 and revoked_at is null"


class Token(NamedTuple):
    """One token, as it is kept."""

    name: str
    hash: bytes
    scopes: Sequence[str]
    #: The only ones that it may write and read; None: all.
    services: Sequence[str] | None
    environments: Sequence[str] | None
    revoked: bool


class Tokens:
    """The table of tokens, as a daemon reads it."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def all(self) -> list[Token]:
        """Return all, those revoked too. Raises StoreUnavailable."""
        with unavailable():
            async with self._connections.reader() as con:
                return [Token(*row) for row in await con.fetch(_ALL)]


async def listed(con: asyncpg.Connection) -> list[dict[str, Any]]:
    """Return name, scopes, services, environments, created_at and revoked_at of all, the oldest first."""
    return list(map(dict, await con.fetch(_LISTED)))


async def create(
    con: asyncpg.Connection,
    name: str,
    scopes: Iterable[str],
    services: Sequence[str] = (),
    environments: Sequence[str] = (),
) -> str:
    """Make a token and return it: nobody can tell it again. Raises StoreError for a name that is taken."""
    secret = PREFIX + secrets.token_urlsafe(_BYTES)
    try:
        await con.execute(
            _ADD, name, digest(secret), sorted(scopes), list(services) or None, list(environments) or None
        )
    except asyncpg.UniqueViolationError:
        raise StoreError(f"there is, or was, a token {name!r}: names are used once") from None
    return secret


async def revoke(con: asyncpg.Connection, name: str) -> bool:
    """End a token; False when there is none of this name that is valid."""
    return bool(await con.execute(_REVOKE, name) == "UPDATE 1")


def digest(secret: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


def find(tokens: Iterable[Token], secret: str) -> Token | None:
    """Return the valid token that this is; takes as long whichever it is."""
    wanted, found = digest(secret), None
    for token in tokens:
        if hmac.compare_digest(token.hash, wanted) and not token.revoked:
            found = token
    return found
