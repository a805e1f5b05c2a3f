"""Elasticsearch's bulk and document APIs, as Filebeat, Logstash, fluent-bit, rsyslog, Vector and the clients use them.

https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk. A bulk is lines: an action, and behind each
but `delete` a document. The name of the index and the document's id become the attributes `index` and `_id`. A bulk is
never refused in part, because fluent-bit takes one with a success in it for delivered: what cannot be read goes to
quarantine, and is answered as the others.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import orjson

from logagg.protocols import jsontext
from logagg.protocols.columns import Columnar
from logagg.protocols.http import Answer, HttpProtocol, Malformed, Request, Taken
from logagg.protocols.json_columns import FEW, decode_pieces, in_pieces, objects_of
from logagg.protocols.limits import few_enough
from logagg.protocols.mapping import from_object
from logagg.protocols.record import Decoded, Origin, Reject

#: Clients refuse to talk to a server that does not send it.
PRODUCT: Final = {"X-Elastic-Product": "Elasticsearch"}

_JSON: Final = "application/json"
#: What clients of version 8 and later accept; answers have the type that was asked for.
_COMPATIBLE: Final = re.compile(r"application/vnd\.elasticsearch\+json; *compatible-with=[0-9]+")
_CLIENTS: Final = re.compile(r"elastic|beat|logstash|manticore|vector", re.IGNORECASE)

#: What each action does to a document that is new: result, and status.
_DONE: Final = {
    "create": ("created", 201),
    "index": ("created", 201),
    "update": ("updated", 200),
    "delete": ("not_found", 404),
}
#: So many different actions are few.
_FEW_ACTIONS: Final = 16
_NO_INDEX: Final = "Validation Failed: 1: index is missing;"
_ERRORS: Final = {
    400: "illegal_argument_exception",
    401: "security_exception",
    408: "timeout_exception",
    413: "content_too_long_exception",
    415: "media_type_header_exception",
}


class _Action(NamedTuple):
    """What an action line says."""

    name: str
    target: str
    key: str | None
    #: How it is answered.
    item: bytes


#: What is done to a document, and the line that is one.
_Document: TypeAlias = tuple[_Action, bytes]
#: The actions of a bulk, and the line of the document of each, None where there is none.
_Parts: TypeAlias = tuple[list[_Action], Sequence[bytes | None]]


def elasticsearch(version: str) -> HttpProtocol:
    """Return the protocol of a server that says it is of this version, such as `8.19.0`.

    Filebeat refuses a server older than itself, but for its setting `allow_older_versions`.
    """
    bulk, document = "Store documents of an Elasticsearch bulk", "Store a document as Elasticsearch does"
    routes = [
        *[(method, path, bulk) for path in ("/_bulk", "/{index}/_bulk") for method in ("POST", "PUT")],
        *[(method, "/{index}/_doc/{id}", document) for method in ("POST", "PUT")],
        *[(method, "/{index}/_create/{id}", document) for method in ("POST", "PUT")],
        ("POST", "/{index}/_doc", document),
    ]
    return HttpProtocol("elasticsearch", tuple(routes), take, refuse, ask=_questions(version))


def is_client(headers: Mapping[str, str]) -> bool:
    """Tell by the headers, names in lower case, whether `GET /` asks for Elasticsearch's answer, `root`."""
    return (
        "x-elastic-client-meta" in headers
        or "vnd.elasticsearch" in headers.get("accept", "")
        or _CLIENTS.search(headers.get("user-agent", "")) is not None
    )


def root(version: str) -> Callable[[Request], Answer]:
    """Return what answers `GET /` and `HEAD /`, by which clients learn the version."""
    return _always(
        {
            "name": "logagg",
            "cluster_name": "logagg",
            "cluster_uuid": "logagg",
            "version": {
                "number": version,
                "build_flavor": "default",
                "build_type": "tar",
                "build_hash": "unknown",
                "build_date": "2024-01-01T00:00:00.000Z",
                "build_snapshot": False,
                "lucene_version": "9.0.0",
                "minimum_wire_compatibility_version": "7.17.0",
                "minimum_index_compatibility_version": "7.0.0",
            },
            "tagline": "You Know, for Search",
        }
    )


def take(request: Request, origin: Origin) -> Taken:
    """Read a bulk, or one document. Raises Malformed for an empty one, and for one without any action."""
    parts = request.path.strip("/").split("/")
    if parts[-1] == "_bulk":
        return _bulk(request, parts[0] if len(parts) > 1 else None, origin)
    action = _action({"index": {"_index": parts[0], "_id": parts[2] if len(parts) > 2 else None}}, None)
    decoded = _one_by_one([(action, request.body)], origin)
    if not decoded.records:
        raise Malformed(decoded.rejects[0].reason)
    return Taken(decoded, _answer(request.headers, action.item.partition(b":")[2][:-1], 201))


def refuse(status: int, why: str, headers: Mapping[str, str]) -> Answer:
    """Say no as Elasticsearch does, but for 503, which is text.

    rsyslog's omelasticsearch, which does not look at the status, takes an answer in JSON without `items` for a final no
    and throws its bulk away; what is no JSON it sends again. All others go by the status.
    """
    if status == 503:
        return Answer(status, f"{why}\n".encode(), "text/plain", PRODUCT)
    error = {"type": _ERRORS.get(status, "exception"), "reason": why}
    body = {"error": {"root_cause": [error], **error}, "status": status}
    return _answer(headers, orjson.dumps(body), status)


def _bulk(request: Request, index: str | None, origin: Origin) -> Taken:
    rejects = list[Reject]()
    actions, lines = _of_few(request.body, index) or _of_any(request.body, index, origin, rejects)
    if not actions:
        raise Malformed(rejects[0].reason if rejects else "request body is required")
    if not any(action.target for action in actions):
        raise Malformed(_NO_INDEX)  # Elasticsearch takes none if one has no index; of ours a good document is not lost
    documents = [(action, line) for action, line in zip(actions, lines, strict=True) if line is not None]
    few_enough(documents)
    decoded = _decode(documents, origin)
    decoded.rejects.extend(rejects)
    # Of a bulk that has nothing but documents to delete, none was done.
    errors = b"false" if documents else b"true"
    items = b",".join([action.item for action in actions])
    body = b'{"took":0,"errors":%b,"items":[%b]}' % (errors, items)
    return Taken(decoded, _answer(request.headers, body))


def _of_few(body: bytes, index: str | None) -> _Parts | None:
    """Read the quick way what most senders write: every other line is one of a few actions. None for what is not so."""
    lines = body.removesuffix(b"\n").split(b"\n")
    names, documents = lines[::2], lines[1::2]
    distinct = set(names)
    if len(names) != len(documents) or len(distinct) > _FEW_ACTIONS or any(map(bytes.isspace, documents)):
        return None
    try:
        actions = {name: _action(jsontext.loads(name).value, index) for name in distinct}
    except ValueError:
        return None
    if b"" in documents or any(action.name == "delete" for action in actions.values()):
        return None
    return [actions[name] for name in names], documents


def _of_any(body: bytes, index: str | None, origin: Origin, rejects: list[Reject]) -> _Parts:
    known, actions, documents = dict[bytes, _Action](), list[_Action](), list[bytes | None]()
    lines = iter(body.split(b"\n"))
    for line in lines:
        action = known.get(line)
        if action is None:
            if not line or line.isspace():
                continue
            try:
                action = _action(jsontext.loads(line).value, index)
            except ValueError as error:
                rejects.append(_reject(origin, str(error), line))
                continue
            if action.key is None:  # then others have the same line, and no more than a few are kept
                known[line] = action
        actions.append(action)
        documents.append(None if action.name == "delete" else _next(lines))
    return actions, documents


def _next(lines: Any) -> bytes:
    """Return the next line that is not blank, empty at the end."""
    for line in lines:
        if line and not line.isspace():
            return bytes(line)
    return b""


def _action(obj: Any, index: str | None) -> _Action:
    """Read an action; the index is empty where none is named. Raises ValueError for what is none."""
    if not isinstance(obj, dict) or len(obj) != 1:
        raise ValueError("Malformed action/metadata line, expected an object with one action")
    ((name, target),) = obj.items()
    if name not in _DONE or not isinstance(target, dict):
        raise ValueError(f"Malformed action/metadata line, unknown action [{name[:50]}]")
    index = target.get("_index") or index or ""
    if not isinstance(index, str):
        raise ValueError(f"{_NO_INDEX} {jsontext.name_of(index)}")
    given = target.get("_id")
    key = None if given is None else given if isinstance(given, str) else jsontext.dumps(given)
    item = _item(name, index)
    if key is not None:
        head, mark, tail = item.partition(b'{"_index"')
        item = b'%b{"_id":%b,%b%b' % (head, orjson.dumps(key), mark[1:], tail)
    return _Action(name, index, key, item)


@lru_cache(maxsize=1024)
def _item(name: str, index: str) -> bytes:
    result, status = _DONE[name]
    return orjson.dumps({name: {"_index": index, "_version": 1, "result": result, "status": status}})


def _decode(documents: list[_Document], origin: Origin) -> Decoded | Columnar:
    if len(documents) >= FEW:
        try:
            return decode_pieces(_pieces(documents), origin)
        except ValueError:
            pass  # one that cannot be read: it costs no neighbour
    return _one_by_one(documents, origin)


def _pieces(documents: list[_Document]) -> Iterator[list[dict[str, Any]]]:
    """Read documents, some at a time. Raises ValueError for what is for the lenient reader."""
    pieces = objects_of([line for _, line in documents])
    for some, objects in zip(in_pieces(documents), pieces, strict=True):
        yield [_document(action, obj) for (action, _), obj in zip(some, objects, strict=True)]


def _one_by_one(documents: list[_Document], origin: Origin) -> Decoded:
    decoded = Decoded([], [])
    for action, line in documents:
        try:
            obj, raw = _read(action, line)
            decoded.records.append(from_object(obj, origin, raw))
        except ValueError as error:
            decoded.rejects.append(_reject(origin, f"document for index {action.target}: {error}", line))
    return decoded


def _read(action: _Action, line: bytes) -> tuple[dict[str, Any], bytes | None]:
    """Read a document; the line, too, if something in it had to be replaced. Raises ValueError for what is none."""
    obj, replaced = jsontext.loads(line)
    return _document(action, obj), line if replaced else None


def _document(action: _Action, obj: Any) -> dict[str, Any]:
    """Make an object of a document. Raises ValueError for what is none."""
    if action.name == "update" and isinstance(obj, dict):
        obj = obj.get("doc") or obj.get("upsert")
    if not isinstance(obj, dict):
        raise ValueError(f"JSON {jsontext.name_of(obj)}, expected an object")
    if action.target:
        obj.setdefault("index", action.target)
    if action.key is not None:
        obj.setdefault("_id", action.key)
    return obj


def _reject(origin: Origin, reason: str, raw: bytes) -> Reject:
    return Reject(origin.now, origin.transport, origin.peer, reason, raw)


def _answer(headers: Mapping[str, str], body: bytes, status: int = 200) -> Answer:
    asked = _COMPATIBLE.search(headers.get("accept", ""))
    return Answer(status, body, asked[0] if asked else _JSON, PRODUCT)


def _always(value: Any) -> Callable[[Request], Answer]:
    body = orjson.dumps(value)
    return lambda request: _answer(request.headers, body)


def _health(_: Request) -> Answer:
    return Answer(200, b"0 00:00:00 logagg green 1 1 0 0 0 0 0 0 - 100.0%\n", "text/plain", PRODUCT)


_LICENSE: Final = {
    "uid": "00000000-0000-0000-0000-000000000000",
    "type": "basic",
    "mode": "basic",
    "status": "active",
    "expiry_date_in_millis": 4_000_000_000_000,
}
_CLUSTER: Final = {
    "cluster_name": "logagg",
    "status": "green",
    "timed_out": False,
    "number_of_nodes": 1,
    "number_of_data_nodes": 1,
    "active_primary_shards": 0,
    "active_shards": 0,
    "relocating_shards": 0,
    "initializing_shards": 0,
    "unassigned_shards": 0,
    "active_shards_percent_as_number": 100.0,
}
_FEATURES: Final = {"ilm": {"available": True, "enabled": True}, "security": {"available": True, "enabled": False}}
_NODES: Final = {"_nodes": {"total": 1, "successful": 1, "failed": 0}, "cluster_name": "logagg", "nodes": {}}
_DONE_SO: Final = {"acknowledged": True}
#: What a sender sets up before it sends. Here it is there already: nothing of it has a meaning.
_SET_UP: Final = (
    *("/_index_template/{name}", "/_template/{name}", "/_component_template/{name}", "/_ilm/policy/{name}"),
    *("/_ingest/pipeline/{name}", "/_data_stream/{name}", r"/{name:(?:logstash|%3Clogstash)[^/]*}"),
)


def _questions(version: str) -> dict[tuple[str, str], Callable[[Request], Answer]]:
    """Return what answers all that senders ask before they send, but for `GET /`, which has other uses, too."""
    nodes, acknowledged, nothing = _always(_NODES), _always(_DONE_SO), _always({})
    return {
        ("GET", "/_license"): _always({"license": _LICENSE}),
        ("GET", "/_xpack"): _always({"license": _LICENSE, "features": _FEATURES}),
        ("GET", "/_cluster/health"): _always(_CLUSTER),
        ("GET", "/_cat/health"): _health,
        ("GET", "/_nodes"): nodes,
        ("GET", "/_nodes/{rest:.*}"): nodes,
        ("GET", "/_index_template"): nothing,
        ("GET", "/_template"): nothing,
        **{("GET", path): nothing for path in _SET_UP},
        **{("PUT", path): acknowledged for path in _SET_UP},
    }
