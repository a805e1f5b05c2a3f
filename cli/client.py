"""The HTTP client of the commands: one kept-alive connection, JSON answers, failures in words.

http.client is imported when a connection is made: `logagg --help` needs none.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import click

from logagg.cli.reach import PROOF, TRUST, Place, reason
from logagg.cli.terminal import Failure, visible

if TYPE_CHECKING:
    import socket
    from http.client import HTTPConnection, HTTPResponse
    from ssl import SSLContext

Params = Mapping[str, str]

#: Parameters of the HTTP API as the command line names them.
_OPTION_NAMES = {"q": "QUERY", "start_time": "--since", "end_time": "--until", "silent_for": "--silent"}
_EXCERPT = 80
#: What logagg says of a path that none of its routes has.
_NO_ROUTE = "Not Found"
#: One link of a Link header, RFC 8288: its address, which may hold commas, and its attributes.
_LINK = re.compile(r"<([^>]*)>([^<]*)")
#: Seconds after which the server may have closed an idle connection.
_IDLE = 4
#: Seconds for what a daemon does at once, however busy: take a connection, and say that it is alive.
_AT_ONCE = 5.0
#: Where the options of FILES stand for all clients of a command (click.Context.meta).
FILES = "logagg.files"


class Unreachable(Failure):
    """No answer: no connection, a lost one, or a time limit. May pass."""


class Absent(Failure):
    """The server is logagg, and has no such thing."""


class Busy(Failure):
    """The server answered 503: nothing was stored or found, try again later."""

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        #: Seconds that the server asks to wait; None when it names none.
        self.retry_after = retry_after


class Page(NamedTuple):
    """One answer of a route that pages."""

    items: list[dict[str, Any]]
    #: The parameters of the next page; None on the last.
    next: dict[str, str] | None


class Client:
    """A logagg daemon at `url`. Every method raises Failure with one line for the operator."""

    def __init__(self, url: str, token: str | None = None, timeout: float = 60) -> None:
        self._place = Place.of(url)
        self._url, self._prefix = self._place.url, self._place.prefix
        self._timeout = timeout
        #: It has answered something in HTTP: from then on an answer may take its time.
        self._met = False
        self._headers = {"Accept": "application/json", "User-Agent": "logagg-cli"}
        if token := (token or "").strip():
            if not (token.isascii() and token.isprintable()):
                raise Failure("the token (--token or LOGAGG_TOKEN) holds what no token can: expected printable ASCII")
            self._headers["Authorization"] = f"Bearer {token}"
        context = click.get_current_context(silent=True)
        self._files: Mapping[str, str | None] = context.meta.get(FILES, {}) if context else {}
        self._connection: HTTPConnection | None = None
        self._used = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, path: str, params: Params) -> Any:
        """GET a route; return the JSON of its answer."""
        return self._json(path, *self._get(path, params))

    def count(self, params: Params) -> int:
        """Return how many records match."""
        rows = self.get("/logs/aggregations", {**params, "by": "level"})
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise Failure(f"{self._url}/logs/aggregations answered with JSON, but no list of objects; is it logagg?")
        return sum(row.get("count") or 0 for row in rows)

    def pages(self, path: str, params: Params) -> Iterator[Page]:
        """GET a route that answers with an array, and what its `Link: rel="next"` headers lead to, page by page."""
        following: dict[str, str] | None = dict(params)
        while following is not None:
            response, body = self._get(path, following)
            items = self._json(path, response, body)
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise Failure(f"{self._url}{path} answered with JSON, but no list of objects; is it logagg?")
            asked, following = following, _next_params(response.getheader("Link", ""))
            if following == asked:
                raise Failure(f"{self._url}{path} answered with a next page that is the same one; is it logagg?")
            yield Page(items, following)

    def post(self, path: str, body: bytes, content_type: str) -> Any:
        """POST a body; return the JSON of the answer. Raises Busy and Unreachable for what may pass."""
        response, answer = self._request("POST", path, body, {"Content-Type": content_type})
        return self._json(path, response, answer)

    def delete(self, path: str, params: Params) -> Any:
        """DELETE what the parameters name; return the JSON of the answer."""
        return self._json(path, *self._request("DELETE", f"{path}?{urlencode(params)}"))

    @contextmanager
    def open(
        self, path: str, params: Params, headers: Params | None = None
    ) -> "Iterator[tuple[HTTPResponse, socket.socket | None]]":
        """GET a route over a connection of its own; give the answer, its body unread, and the socket it comes from.

        The socket is None when it cannot be told any more.
        """
        from http.client import HTTPException

        with ExitStack() as closing:
            connection = self._connect()
            closing.callback(connection.close)
            try:
                target = f"{self._prefix}{path}?{urlencode(params)}"
                connection.request("GET", target, headers={**self._headers, **(headers or {})})
                sock, response = connection.sock, connection.getresponse()
                closing.callback(response.close)
                if response.status != 200:
                    self._json(path, response, response.read())
            except (OSError, HTTPException, ValueError) as error:
                raise Unreachable(self._unreachable(error)) from None
            if not response.chunked and response.length is None:
                raise Failure(f"{self._url} answers in HTTP/1.0 (a proxy?): the end could not be told from a break")
            yield response, sock

    def _get(self, path: str, params: Params) -> "tuple[HTTPResponse, bytes]":
        return self._request("GET", f"{path}?{urlencode(params)}" if params else path)

    def _request(
        self, method: str, target: str, body: bytes | None = None, headers: Params | None = None
    ) -> "tuple[HTTPResponse, bytes]":
        from http.client import HTTPException

        if time.monotonic() - self._used > _IDLE:
            self.close()
        connection = self._connection = self._connection or self._connect()
        try:
            connection.request(method, self._prefix + target, body, {**self._headers, **(headers or {})})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, HTTPException, ValueError) as error:
            self.close()
            raise Unreachable(self._unreachable(error)) from None
        self._used = time.monotonic()
        return response, answer

    def _connect(self) -> "HTTPConnection":
        """Connect to what answers in HTTP. Whatever else may listen there says nothing for ever; and gets no token."""
        from http.client import HTTPConnection, HTTPException, HTTPSConnection

        patience = min(_AT_ONCE, self._timeout)
        host, port = self._place.host, self._place.port
        if self._place.https:
            connection: HTTPConnection = HTTPSConnection(host, port, timeout=patience, context=_context(**self._files))
        else:
            connection = HTTPConnection(host, port, timeout=patience)
        try:
            connection.connect()
            if not self._met:
                connection.request("GET", f"{self._prefix}/healthz")
                connection.getresponse().read()  # any answer is one
                self._met = True
        except (OSError, HTTPException, ValueError) as error:
            said = self._unreachable(error)
            if isinstance(error, TimeoutError):
                what = "takes connections and says nothing" if connection.sock else "cannot be reached"
                said = f"{self._url} {what} within {patience:g} s; is it the HTTP port of logagg?"
            connection.close()
            raise Unreachable(said) from None
        connection.timeout = self._timeout
        if connection.sock:  # not when that answer was the last of its connection
            connection.sock.settimeout(self._timeout)
        return connection

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _unreachable(self, error: Exception) -> str:
        return reason(self._place, error, self._timeout, self._files.get("cert_file"))

    def _json(self, path: str, response: "HTTPResponse", body: bytes) -> Any:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if response.status != 200:
            raise self._refusal(path, response, answer)
        if answer is None:
            excerpt = visible(body[:_EXCERPT].decode("utf-8", "replace"))
            raise Failure(f"{self._url}{path} answered with something that is not JSON; is it logagg? {excerpt}")
        return answer

    def _refusal(self, path: str, response: "HTTPResponse", answer: Any) -> Failure:
        status, detail = response.status, _detail(answer)
        if status == 401:
            return Failure(f"{self._url} wants a token, or another one: --token or LOGAGG_TOKEN (401)")
        if status == 403:
            return Failure(f"{self._url} refuses that (403){_after(detail)}")
        if status == 503:
            return Busy(detail or f"{self._url} cannot serve this now (503)", _seconds(response))
        if status in (400, 422) and detail:
            return Failure(detail)
        if status == 404 and detail not in ("", _NO_ROUTE):
            return Absent(detail)
        if status == 404:
            without = f"leave out {self._prefix}, unless a proxy serves logagg there"
            return Failure(f"{self._url} has no {path} (404); {without if self._prefix else 'is it logagg?'}")
        return Failure(f"{self._url}{path} answered {status} {visible(response.reason)}{_after(detail)}")


def _context(ca_file: str | None = None, cert_file: str | None = None, key_file: str | None = None) -> "SSLContext":
    """Return what https is spoken with: what is trusted, the system's certificates without a file; and who we are."""
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        problem = "holds no certificate" if isinstance(error, ssl.SSLError) else getattr(error, "strerror", error)
        raise Failure(f"{ca_file}: {problem}; {TRUST}") from None
    if key_file and not cert_file:
        raise Failure(f"{key_file}: a key without its certificate; {PROOF}")
    if cert_file:
        try:
            context.load_cert_chain(cert_file, key_file, lambda: "")  # nobody is there to be asked for a password
        except (OSError, ValueError) as error:
            files = ", ".join(filter(None, (cert_file, key_file)))
            wrong = isinstance(error, ssl.SSLError)
            problem = "no certificate and its key" if wrong else getattr(error, "strerror", error)
            raise Failure(f"{files}: {problem}; {PROOF}") from None
    return context


def _after(detail: str) -> str:
    return f": {detail}" if detail else ""


def _seconds(response: "HTTPResponse") -> float | None:
    text = response.getheader("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else None


def _detail(answer: Any) -> str:
    """Return what an error body says: a text, or the lines of a pydantic list; empty when it says nothing."""
    detail = answer.get("detail") if isinstance(answer, dict) else None
    if isinstance(detail, str):
        return visible(detail, block=True)
    if not isinstance(detail, list):
        return ""
    return "\n".join(_detail_line(each) for each in detail if isinstance(each, dict))


def _detail_line(each: dict[str, Any]) -> str:
    place = [str(part) for part in each.get("loc") or () if part not in ("query", "body")]
    names = [_OPTION_NAMES.get(place[0], f"--{place[0].replace('_', '-')}"), *place[1:]] if place else []
    message = visible(str(each.get("msg", "")).removeprefix("Value error, "), block=True)
    return f"{visible(' '.join(names))}: {message}" if names else message


def _next_params(link: str) -> dict[str, str] | None:
    """Return the query of the link with rel="next".

    Only the query: the path is the one that was asked for, and a token never follows a link to another place.
    """
    for target, attributes in _LINK.findall(link):
        if 'rel="next"' in attributes.replace(" ", ""):
            return dict(parse_qsl(urlsplit(target).query, keep_blank_values=True))
    return None
