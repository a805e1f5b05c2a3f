"""What a request may do: the scope of its route, and the token that it came with."""

from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from aiohttp import web

#: Scope of a route that answers everybody, and of one that answers every token.
OPEN: Final = "open"
ANY: Final = "any"
#: What a client is asked for; browsers ask for name and password then, and the password is the token.
CHALLENGE: Final = 'Basic realm="logagg: any name, and a token as password", charset="UTF-8"'

#: Columns, and the only values that they may have.
Only = tuple[tuple[str, tuple[str, ...]], ...]


class Grant(NamedTuple):
    """What a request may do, beyond that it is let in."""

    #: The name of the token; empty where none is needed.
    name: str = ""
    #: What it may write and read: `service`, `environment`.
    only: Only = ()

    def holds(self, record: Mapping[str, Any]) -> bool:
        """Whether it may read this record."""
        return all(record[column] in values for column, values in self.only)


EVERYTHING: Final = Grant()
GRANT: Final = web.RequestKey("GRANT", Grant)
#: Tells what a request may do on a route of this scope; raises HTTPUnauthorized, HTTPForbidden.
Guard = Callable[[web.Request, str], Grant]
GUARD: Final[web.AppKey[Guard]] = web.AppKey("GUARD")


def let_in(request: web.Request, scope: str) -> None:
    """Ask whether a request may go on; raises what the guard raises."""
    if guard := request.app.get(GUARD):
        request[GRANT] = guard(request, scope)


def grant_of(request: web.Request) -> Grant:
    """Return what a request may do that was let in."""
    grant: Grant = request.get(GRANT, EVERYTHING)
    return grant


def secret_of(headers: Mapping[str, str]) -> str | None:
    """Return the token of a request, in whichever form its sender knows; None where there is none.

    `Bearer TOKEN` (RFC 6750), `Basic` with the token as password, or as name without one (RFC 7617), `Splunk TOKEN`,
    and Elasticsearch's `ApiKey`, which is base64 of `id:TOKEN`, or the token itself.
    """
    scheme, _, rest = headers.get("Authorization", "").strip().partition(" ")
    rest = rest.strip()
    match scheme.lower():
        case "bearer" | "splunk":
            return rest or None
        case "basic":
            name, _, password = _plain(rest).partition(":")
            return password or name or None
        case "apikey":
            return _plain(rest).partition(":")[2] or rest or None
    return None


def _plain(text: str) -> str:
    try:
        return b64decode(text, validate=True).decode(errors="surrogateescape")
    except ValueError:
        return ""


def refused(status: int, why: str) -> web.HTTPException:
    """Return what says no: 401 asks for a token, 403 says that this one may not."""
    if status == web.HTTPUnauthorized.status_code:
        return web.HTTPUnauthorized(reason=why, headers={"WWW-Authenticate": CHALLENGE})
    return web.HTTPForbidden(reason=why)
