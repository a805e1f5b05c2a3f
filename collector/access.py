"""Who is let in over HTTP: tokens, as the database has them, and what each may write.

As long as there has never been a token, and `auth_required` is off, everybody is let in. From the first token on every
route but `/healthz` and `/readyz` wants one; tokens that are revoked stay in the table, so nothing opens again. The
daemon keeps the hashes in a file, for starts at which PostgreSQL is away; one that cannot be read lets nobody in until
PostgreSQL has answered.
"""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import orjson
import structlog
from aiohttp import web

from logagg.collector.complaints import Complaints
from logagg.collector.metrics import Metrics
from logagg.protocols.columns import Columnar
from logagg.protocols.record import Decoded
from logagg.query.grants import ANY, EVERYTHING, OPEN, Grant, refused, secret_of
from logagg.sinks.errors import StoreError
from logagg.sinks.tokens import Token, Tokens, find

log = structlog.get_logger("access")

#: Seconds after which a token that was made or revoked is known to all daemons.
PERIOD: Final = 2.0
_FILE: Final = "tokens.json"


class Access:
    """Lets requests in, or not."""

    def __init__(self, tokens: Tokens, folder: Path, metrics: Metrics, *, required: bool) -> None:
        """Begin with what the file in the folder says."""
        self._tokens = tokens
        self._file = folder / _FILE
        self._metrics = metrics
        self._required = required
        self._complaints = Complaints()
        #: None: there is a file of tokens, and it cannot be read.
        self._kept = self._read()
        self._known: Sequence[Token] | None = self._kept

    @property
    def closed(self) -> bool:
        """Whether a token is needed."""
        return self._required or self._known is None or bool(self._known)

    async def run(self) -> NoReturn:
        """Follow the table of tokens."""
        while True:
            with contextlib.suppress(StoreError):  # PostgreSQL is away: what is known stays
                await self.refresh()
            await asyncio.sleep(PERIOD)

    async def refresh(self) -> None:
        """Read the table of tokens. Raises StoreError."""
        known = await self._tokens.all()
        if known != self._known:
            if known and not self.closed:
                log.info("there are tokens now: every request needs one", tokens=len(known))
            self._known = known
        if known != self._kept:
            try:
                await asyncio.to_thread(self._keep, known)
                self._kept = known
            except OSError as error:  # tried again
                self._complaints.say("the file of tokens cannot be written", "http", "", str(error))

    def admit(self, request: web.Request, scope: str) -> Grant:
        """Return what a request may do on a route of this scope. Raises HTTPUnauthorized, HTTPForbidden."""
        if scope == OPEN or not self.closed:
            return EVERYTHING
        secret = secret_of(request.headers)
        token = find(self._known or (), secret) if secret else None
        if token is None:
            unknown = "the token is not known, or was revoked; a new one is known within seconds"
            why = unknown if secret else "a token is needed; see `logagg token create`"
            raise self._refused(request, 401, why)
        if scope != ANY and scope not in token.scopes:
            why = f"token {token.name!r} is for {', '.join(token.scopes)}, and this is for {scope}"
            raise self._refused(request, 403, why)
        bound = (("service", token.services), ("environment", token.environments))
        only = tuple((column, tuple(values)) for column, values in bound if values)
        if only and scope == "admin":
            raise self._refused(request, 403, f"token {token.name!r} is for some services only, and this tells of all")
        return Grant(token.name, only)

    def _refused(self, request: web.Request, status: int, why: str) -> web.HTTPException:
        self._metrics.refused_requests.labels(str(status)).inc()
        self._complaints.say("a request was refused", "http", request.remote or "", why, kind=why)
        return refused(status, why)

    def _read(self) -> list[Token] | None:
        try:
            return [
                Token(**each | {"hash": bytes.fromhex(each["hash"])}) for each in orjson.loads(self._file.read_bytes())
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.error(
                "the file of tokens cannot be read; nobody is let in before PostgreSQL answers", reason=str(error)
            )
            return None

    def _keep(self, tokens: Sequence[Token]) -> None:
        """Write the file whole, or leave it; only we may read it. Raises OSError."""
        new = self._file.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(orjson.dumps([token._asdict() | {"hash": token.hash.hex()} for token in tokens]))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file)


def within(decoded: Decoded | Columnar, grant: Grant) -> Decoded | Columnar:
    """Return what a sender may write, which is all or nothing; raises HTTPForbidden.

    Records that name no service, or no environment, get the one that the token is for, if it is for one.
    """
    for column, allowed in grant.only:
        usual = allowed[0] if len(allowed) == 1 else None
        if isinstance(decoded, Columnar):
            named = decoded.records[column].fill_null(usual) if usual else decoded.records[column]
            decoded = decoded._replace(records=decoded.records.with_columns(named))
            others = named.filter(~named.is_in(allowed).fill_null(value=False)).unique().to_list()
        else:
            given: dict[str, Any] = {column: usual}
            records = [
                record._replace(**given) if usual and getattr(record, column) is None else record
                for record in decoded.records
            ]
            decoded = decoded._replace(records=records)
            others = list({getattr(record, column) for record in records}.difference(allowed))
        if others:
            what = "no " + column if others[0] is None else f"{column} {others[0]!r:.100}"
            raise refused(403, f"token {grant.name!r} is for {column} {', '.join(allowed)}, and a record has {what}")
    return decoded
