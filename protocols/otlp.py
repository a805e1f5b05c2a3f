"""OTLP logs over HTTP: JSON or protobuf, from the OpenTelemetry SDKs and collector.

https://opentelemetry.io/docs/specs/otlp/#otlphttp and opentelemetry/proto/logs/v1/logs.proto. Attributes of resource,
scope and record become attributes under their own names; where two have the same one, the record's stays, and the outer
one is kept as `resource.NAME`. The scope's name is `otel.scope.name`.
"""

from collections.abc import Mapping
from typing import Final

import orjson

from logagg.protocols import otlp_json, otlp_protobuf
from logagg.protocols.http import Answer, HttpProtocol, Malformed, Request, Taken
from logagg.protocols.record import Origin

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"


def take(request: Request, origin: Origin) -> Taken:
    """Read an export request. Raises Malformed for a body without any record that can be read."""
    kind, body = request.headers.get("content-type", "").lower(), request.body
    if "json" in kind or ("protobuf" not in kind and body[:1] == b"{"):
        decoded, answer = otlp_json.decode(body, origin), Answer(200, b"{}", JSON)
    else:
        decoded, answer = otlp_protobuf.decode(body, origin), Answer(200, b"", PROTOBUF)
    if decoded.rejects and not len(decoded.records):
        raise Malformed(f"no log record in a body of {len(body)} bytes: {decoded.rejects[0].reason}")
    return Taken(decoded, answer)


#: HTTP status to google.rpc.Code.
_CODES: Final = {400: 3, 401: 16, 403: 7, 408: 4, 413: 8, 415: 3, 503: 14}


def refuse(status: int, why: str, headers: Mapping[str, str]) -> Answer:
    """Say no as a google.rpc.Status, in the form of the request."""
    if "json" not in headers.get("content-type", ""):
        return Answer(status, otlp_protobuf.status(_CODES.get(status, 2), why), PROTOBUF)
    return Answer(status, orjson.dumps({"code": _CODES.get(status, 2), "message": why}), JSON)


OTLP: Final = HttpProtocol(
    "otlp", (("POST", "/v1/logs", "Store logs of an OTLP exporter, JSON or protobuf"),), take, refuse
)
