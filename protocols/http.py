"""What a protocol over HTTP is, sans-IO: a request's parts in, records and the answer that its sender knows out.

The listener reads the body (with limits, decompressed by its Content-Encoding), calls `take`, stores what came of it,
and sends the answer once it is durable.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from logagg.protocols.columns import Columnar
from logagg.protocols.record import Decoded, Origin


class Malformed(ValueError):
    """A body that can never be read: sending it again is no use. The text says why, with the numbers."""


class Request(NamedTuple):
    """A request, read whole."""

    method: str
    path: str
    #: Of a parameter given twice, the last.
    query: Mapping[str, str]
    #: Names in lower case.
    headers: Mapping[str, str]
    #: Decompressed by its Content-Encoding.
    body: bytes
    #: What decompression inside the body may give, in bytes.
    limit: int


class Answer(NamedTuple):
    """An answer as the protocol's senders expect it."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


class Taken(NamedTuple):
    """What a request brought."""

    decoded: Decoded | Columnar
    #: Sent once all of it is durable.
    answer: Answer


@dataclass(frozen=True)
class HttpProtocol:
    """One protocol over HTTP; the table in `collector/wiring.py` lists them."""

    #: Its name in metrics, logs and the quarantine: `loki`, `elasticsearch`, `otlp` ...
    transport: str
    #: Where records are sent: (method, path, summary); paths as aiohttp writes them, `/{index}/_bulk`.
    routes: tuple[tuple[str, str, str], ...]
    #: Decodes; raises Malformed, and `limits.TooLarge`.
    take: Callable[[Request, Origin], Taken]
    #: Says no in the form that the protocol's senders read: status (400, 401, 408, 413, 503), why, and the headers of
    #: the request, names in lower case.
    refuse: Callable[[int, str, Mapping[str, str]], Answer]
    #: Questions that bring no records, such as senders ask before they send: (method, path) -> what answers it. GET
    #: answers HEAD too.
    ask: Mapping[tuple[str, str], Callable[[Request], Answer]] = field(default_factory=dict)
