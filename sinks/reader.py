"""A role that reads the records with SQL, and can do nothing else.

It may select from `logs`, `batches` and `quarantine`, and from nothing more. Days are read through `logs`: that needs
no privilege on a day's partition, so those that are made tomorrow are readable, too, and no default privilege gives
away other tables of the same schema. That its transactions are read-only and end in time are settings, which a session
may change; that it can change no table is a matter of privileges.
"""

import hashlib
import hmac
import secrets
from base64 import b64encode
from datetime import timedelta

import asyncpg

from logagg.sinks.errors import StoreError
from logagg.sinks.locks import MIGRATION, locked

TABLES = ("logs", "batches", "quarantine")
#: Connections that a reader may hold: its dashboards must not take all that the server has.
_CONNECTIONS = 20
#: Seconds that a transaction may do nothing: while it is open, the day that it has read cannot be dropped.
_IDLE = 60
_ITERATIONS = 4096
#: PostgreSQL cuts a longer name.
_LONGEST = 63

_KNOWN = """
select r.rolsuper or r.rolname = current_user or pg_has_role(r.oid, c.relowner, 'member')
from pg_roles r, pg_class c
where r.rolname = $1 and c.oid = 'logs'::regclass
"""
_SCHEMA = "select relnamespace::regnamespace::text from pg_class where oid = 'logs'::regclass"
_MAY = """
select has_database_privilege($1, current_database(), 'connect'),
    has_schema_privilege($1, relnamespace, 'usage'), has_schema_privilege($1, relnamespace, 'create')
from pg_class where oid = 'logs'::regclass
"""


async def make_reader(
    connection: asyncpg.Connection, name: str, *, password: str | None, limit: timedelta
) -> list[str]:
    """Make the role `name`, or mend it; return what the operator should know, in lines.

    `limit` ends its statements; no password leaves the one it has. Raises StoreError for a role that is more than a
    reader, or a password that cannot be one, and asyncpg's errors where PostgreSQL does not let us.
    """
    _check(name, password)
    async with locked(connection, MIGRATION), connection.transaction():
        more = await connection.fetchval(_KNOWN, name)
        if more:
            message = f"the role {name} owns the tables, or is an administrator: name another one as the reader"
            raise StoreError(message)
        role = _quoted(name)
        if more is None:
            await connection.execute(f"create role {role} connection limit {_CONNECTIONS}")
        await connection.execute(f"alter role {role} login")
        if password is not None:
            await connection.execute(f"alter role {role} password '{verifier(password)}'")
        await _settings(connection, role, limit)
        can_create = await _grant(connection, name, role)
    notes = [f"reader {name}: " + ("made" if more is None else "there already, brought up to date")]
    if more is None and password is None:
        notes.append(f"it has no password: psql \"$(logagg db url)\" -c '\\password {role}', or --password-file")
    if can_create:
        notes.append("warning: everybody may create tables in the schema of logs, and so may this role")
    return notes


def _check(name: str, password: str | None) -> None:
    if not name.isprintable() or not 0 < len(name.encode()) <= _LONGEST:
        message = f"{name!r} is no name of a role: expected 1 to {_LONGEST} bytes of text"
        raise StoreError(message)
    if password is not None and not (password and password.isascii() and password.isprintable()):
        message = "the password must be printable ASCII, and not empty"
        raise StoreError(message)


async def _settings(connection: asyncpg.Connection, role: str, limit: timedelta) -> None:
    values = {
        "default_transaction_read_only": "on",
        "statement_timeout": f"{round(limit.total_seconds() * 1000)}ms",
        "idle_in_transaction_session_timeout": f"{_IDLE}s",
    }
    database = _quoted(await connection.fetchval("select current_database()"))
    for setting, value in values.items():
        await connection.execute(f"alter role {role} in database {database} set {setting} = '{value}'")


async def _grant(connection: asyncpg.Connection, name: str, role: str) -> bool:
    """Give the role what it needs; return whether it may create tables, as everybody."""
    schema = await connection.fetchval(_SCHEMA)
    may_connect, may_enter, can_create = await connection.fetchrow(_MAY, name)
    if not may_connect:
        database = _quoted(await connection.fetchval("select current_database()"))
        await connection.execute(f"grant connect on database {database} to {role}")
    if not may_enter:
        await connection.execute(f"grant usage on schema {schema} to {role}")
    tables = ", ".join(f"{schema}.{table}" for table in TABLES)
    await connection.execute(f"revoke all on {tables} from {role}")
    await connection.execute(f"grant select on {tables} to {role}")
    await connection.execute(f"grant execute on function {schema}.level(smallint) to {role}")
    return bool(can_create)


def _quoted(name: str) -> str:
    """Return a name as an identifier, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def verifier(password: str) -> str:
    r"""Return what PostgreSQL stores of a password (SCRAM-SHA-256, RFC 5803), as psql's `\password` does.

    So the password itself is in no statement, and in no log of the server.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client, server = (hmac.digest(salted, label, "sha256") for label in (b"Client Key", b"Server Key"))
    stored = hashlib.sha256(client).digest()
    one, two, three = (b64encode(each).decode() for each in (salt, stored, server))
    return f"SCRAM-SHA-256${_ITERATIONS}:{one}${two}:{three}"
