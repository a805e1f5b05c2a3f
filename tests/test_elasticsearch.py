import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols import elasticsearch as elasticsearch_module
from logagg.protocols.columns import Columnar, to_records
from logagg.protocols.elasticsearch import PRODUCT, elasticsearch, is_client, root
from logagg.protocols.http import Answer, Malformed, Request, Taken
from logagg.protocols.json_columns import FEW
from logagg.protocols.record import Decoded, Origin, Record

VECTORS = Path(__file__).parents[2] / "shared" / "vectors"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
THEN = datetime(2026, 10, 11, 22, 14, 15, 3000, tzinfo=UTC)
ORIGIN = Origin(NOW, "elasticsearch", "192.0.2.9", "staging")
ELASTICSEARCH = elasticsearch("8.19.0")


def request(body: bytes = b"", path: str = "/_bulk", method: str = "POST", **headers: str) -> Request:
    return Request(
        method, path, {}, {name.replace("_", "-"): value for name, value in headers.items()}, body, 1_000_000
    )


def take(body: bytes, path: str = "/_bulk", **headers: str) -> Taken:
    taken = ELASTICSEARCH.take(request(body, path, **headers), ORIGIN)
    assert taken.answer.headers == PRODUCT
    return taken


def decoded(taken: Taken) -> Decoded:
    assert isinstance(taken.decoded, Decoded)
    return taken.decoded


def bulk(body: bytes, path: str = "/_bulk") -> tuple[list[Record], list[Any], Any]:
    taken = take(body, path)
    assert taken.answer.status == 200
    return *decoded(taken), json.loads(taken.answer.body)


def rest(record: Record) -> Any:
    return json.loads(record.attributes) if record.attributes is not None else None


ACTION = b'{"create":{"_index":"logs"}}\n'


def test_a_bulk() -> None:
    records, rejects, answer = bulk(
        ACTION + b'{"@timestamp":"2026-10-11T22:14:15.003Z","message":"a","log":{"level":"error"}}\n'
        b'{"index":{"_index":"other","_id":"7"}}\n{"message":"b","service":{"name":"api"},"host":{"name":"h"}}\n'
        b'{"delete":{"_index":"other","_id":"6"}}\n'
        b'{"update":{"_index":"logs","_id":"5"}}\n{"doc":{"message":"c"},"doc_as_upsert":true}\n'
        + ACTION
        + b'{"k":1}\n'
    )
    assert rejects == []
    assert [record.message for record in records] == ["a", "b", "c", ""]
    assert (records[0].timestamp, records[0].severity) == (THEN, 3)
    assert (records[1].service, records[1].host) == ("api", "h")
    assert [rest(record) for record in records] == [
        {"index": "logs"},
        {"index": "other", "_id": "7"},
        {"index": "logs", "_id": "5"},
        {"index": "logs", "k": 1, "logagg_note": "no message"},
    ]
    created = {"_index": "logs", "_version": 1, "result": "created", "status": 201}
    assert answer == {
        "took": 0,
        "errors": False,
        "items": [
            {"create": created},
            {"index": {**created, "_index": "other", "_id": "7"}},
            {"delete": {"_index": "other", "_id": "6", "_version": 1, "result": "not_found", "status": 404}},
            {"update": {"_index": "logs", "_id": "5", "_version": 1, "result": "updated", "status": 200}},
            {"create": created},
        ],
    }


DOCS = [b'{"@timestamp":"2026-10-11T22:14:15.003Z","message":"m%d","log.level":"error","k":1}' % n for n in range(FEW)]


def test_a_large_bulk_in_columns_has_the_same_records() -> None:
    body = b"".join(b'{"index":{"_index":"i","_id":"%d"}}\n%b\n' % pair for pair in enumerate(DOCS))
    columns = take(body).decoded
    assert isinstance(columns, Columnar)
    few = [
        record
        for n, doc in enumerate(DOCS)
        for record in bulk(b'{"index":{"_index":"i","_id":"%d"}}\n%b' % (n, doc))[0]
    ]
    assert to_records(columns.records) == few


@pytest.mark.parametrize(
    "odd", [b"bad", b'{"message":"\\u0000"}', b'{"message":"m","k":' + b"[" * 990 + b"]" * 990 + b"}"]
)
def test_one_odd_document_of_a_large_bulk_costs_no_neighbour(odd: bytes) -> None:
    records, rejects, answer = bulk(b"".join(ACTION + doc + b"\n" for doc in (*DOCS, odd, *DOCS)))
    plain = [record.message for record in records if record.message.startswith("m") and not record.raw]
    assert plain[: 2 * len(DOCS)] == [f"m{n}" for n in range(len(DOCS))] * 2
    assert (len(records) + len(rejects), len(answer["items"])) == (2 * len(DOCS) + 1,) * 2


def test_the_index_may_be_in_the_path() -> None:
    body = b'{"index":{}}\n{"message":"a"}\n{"index":{"_index":"own"}}\n{"message":"b"}\n'
    records, _, answer = bulk(body, "/logs-app/_bulk")
    assert [rest(record) for record in records] == [{"index": "logs-app"}, {"index": "own"}]
    assert [item["index"]["_index"] for item in answer["items"]] == ["logs-app", "own"]


def test_fields_of_the_document_win_over_the_action() -> None:
    (record,), _, _ = bulk(b'{"index":{"_index":"i","_id":"1"}}\n{"message":"m","index":"mine","_id":2}\n')
    assert rest(record) == {"index": "mine", "_id": 2}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n", b"\n \n\r\n"])
@pytest.mark.parametrize("between", [b"\n", b"\r\n", b"\n\n"])
def test_blank_lines_as_omelasticsearch_writes_them(between: bytes, end: bytes) -> None:
    action = b'{"index":{"_index": "logs","_type":"_doc"}}'
    records, rejects, answer = bulk((action + between + b'{"message":"a"}' + end) * 2)
    assert ([record.message for record in records], rejects, len(answer["items"])) == (["a", "a"], [], 2)


@pytest.mark.parametrize("line", [b"bad", b'{"a":', b"[]", b"7", b"null", b'{"a":' * 30_000])
def test_a_document_that_cannot_be_read_goes_to_quarantine_and_is_answered_as_the_others(line: bytes) -> None:
    records, rejects, answer = bulk(ACTION + b'{"message":"a"}\n' + ACTION + line + b"\n" + ACTION + b'{"message":"b"}')
    assert [record.message for record in records] == ["a", "b"]
    assert [reject.raw for reject in rejects] == [line]
    assert rejects[0].reason.startswith("document for index logs: ")
    assert (answer["errors"], [item["create"]["status"] for item in answer["items"]]) == (False, [201] * 3)


@pytest.mark.parametrize("doc", [b'{"script":{"source":"x"}}', b"{}", b'{"doc":[]}'])
def test_an_update_without_a_document_goes_to_quarantine(doc: bytes) -> None:
    _, (reject,), answer = bulk(b'{"update":{"_index":"i","_id":"1"}}\n' + doc)
    assert (reject.raw, answer["errors"]) == (doc, False)


def test_a_bulk_that_ends_behind_an_action() -> None:
    records, (reject,), answer = bulk(ACTION + b'{"message":"a"}\n' + ACTION)
    assert (len(records), reject.raw, len(answer["items"])) == (1, b"", 2)


def test_bad_actions_among_good_ones_cost_no_neighbour() -> None:
    records, rejects, answer = bulk(
        b"bad\n" + ACTION + b'{"message":"a"}\n{"creat":{}}\n{"message":"lost?"}\n' + ACTION + b'{"message":"b"}'
    )
    assert [record.message for record in records] == ["a", "b"]
    assert [reject.raw for reject in rejects] == [b"bad", b'{"creat":{}}', b'{"message":"lost?"}']
    assert (answer["errors"], len(answer["items"])) == (False, 2)


@pytest.mark.parametrize(
    ("line", "message", "attributes"),
    [
        (b'{"message":"a\xff"}', "a\ufffd", {"index": "logs"}),
        (b'{"message":"a\\u0000","k":NaN}', "a\ufffd", {"k": "NaN", "index": "logs"}),
        (b'{"message":"\\ud800","\\ud800":1}', "\ufffd", {"\ufffd": 1, "index": "logs"}),
    ],
)
def test_what_cannot_be_stored_is_replaced_and_the_bytes_are_kept(line: bytes, message: str, attributes: Any) -> None:
    (first, second), _, _ = bulk(ACTION + line + b"\n" + ACTION + b'{"message":"good"}')
    assert (first.message, rest(first), first.raw) == (message, attributes, line)
    assert (second.message, second.raw) == ("good", None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "request body is required"),
        (b"\n", "request body is required"),
        (b" \r\n\n", "request body is required"),
        (b"foobar", "invalid JSON"),
        (b"{}", "Malformed action/metadata line"),
        (b'{"creat":{}}\n{}', r"unknown action \[creat\]"),
        (b'{"index":7}\n{}', "unknown action"),
        (b'{"index":{"_id":"1"}}\n{"message":"m"}\n', "Validation Failed: 1: index is missing;"),
        (b'{"index":{"_index":7}}\n{"message":"m"}\n', "index is missing"),
    ],
)
def test_a_bulk_without_any_action_is_malformed(body: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        take(body)


def test_an_action_without_an_index_has_its_item_and_its_document_is_stored() -> None:
    lines = [b'{"index":{"_index":"a"}}', b'{"message":"1"}', b'{"index":{}}', b'{"message":"2"}']
    taken = take(b"\n".join([*lines, b'{"create":{"_index":"c"}}', b'{"message":"3"}', b""]))
    found = decoded(taken)
    assert [record.message for record in found.records] == ["1", "2", "3"]
    assert found.rejects == []
    assert found.records[1].attributes is None
    answer = json.loads(taken.answer.body)
    assert [next(iter(item.values()))["_index"] for item in answer["items"]] == ["a", "", "c"]
    assert answer["errors"] is False


@pytest.mark.parametrize("path", ["/logs/_doc", "/logs/_doc/7", "/logs/_create/7"])
def test_one_document(path: str) -> None:
    taken = take(b'{"@timestamp":"2026-10-11T22:14:15.003Z","message":"m"}', path)
    (record,) = decoded(taken).records
    assert (record.timestamp, record.message, taken.answer.status) == (THEN, "m", 201)
    answer = json.loads(taken.answer.body)
    assert (answer["_index"], answer["result"]) == ("logs", "created")
    assert (answer.get("_id"), rest(record).get("_id")) == (("7", "7") if path[-1] == "7" else (None, None))


@pytest.mark.parametrize("body", [b"", b"bad", b"[]"])
def test_one_document_that_cannot_be_read_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed, match="document for index logs"):
        take(body, "/logs/_doc")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        *[(form, form) for form in ("application/vnd.elasticsearch+json; compatible-with=8",)],
        (
            "application/vnd.elasticsearch+json;compatible-with=9,text/plain",
            "application/vnd.elasticsearch+json;compatible-with=9",
        ),
    ],
)
def test_the_answer_has_the_type_that_was_asked_for(accept: str, kind: str) -> None:
    assert take(ACTION + b"{}", accept=accept).answer.content_type == kind
    assert ELASTICSEARCH.ask["GET", "/_license"](request(accept=accept)).content_type == kind


def test_what_senders_ask_first() -> None:
    for (method, _), ask in ELASTICSEARCH.ask.items():
        answer = ask(request(method=method))
        assert (answer.status, answer.headers) == (200, PRODUCT)
        assert answer.content_type == "text/plain" or isinstance(json.loads(answer.body), dict)
    answer = root("8.19.0")(request(path="/", method="GET"))
    assert (answer.status, answer.headers) == (200, PRODUCT)
    assert json.loads(answer.body)["version"]["number"] == "8.19.0"
    assert json.loads(ELASTICSEARCH.ask["GET", "/_license"](request()).body)["license"]["status"] == "active"


@pytest.mark.parametrize(
    ("headers", "is_one"),
    [
        ({"user-agent": "elasticsearch-py/8.19.3 (Python/3.11.7; elastic-transport/8.19.0)"}, True),
        ({"user-agent": "Elastic-filebeat-oss/8.11.0 (linux; amd64)"}, True),
        ({"user-agent": "Filebeat/8.0.0"}, True),
        ({"user-agent": "logstash/8.11.0 (OS=Linux) logstash-output-elasticsearch/11.16.0"}, True),
        ({"user-agent": "Vector/0.40.0"}, True),
        ({"accept": "application/vnd.elasticsearch+json; compatible-with=8"}, True),
        ({"x-elastic-client-meta": "es=8.19.3"}, True),
        ({"user-agent": "curl/8.5.0", "accept": "*/*"}, False),
        ({"user-agent": "Mozilla/5.0", "accept": "text/html"}, False),
        ({}, False),
    ],
)
def test_clients_of_elasticsearch_are_told_from_others(headers: dict[str, str], is_one: bool) -> None:
    assert is_client(headers) == is_one


def test_what_is_to_come_again_is_refused_without_json() -> None:
    answer = ELASTICSEARCH.refuse(503, "the store is away", {})
    assert answer == (503, b"the store is away\n", "text/plain", PRODUCT)


@pytest.mark.parametrize("status", [400, 401, 408, 413, 415])
def test_a_refusal(status: int) -> None:
    answer = ELASTICSEARCH.refuse(status, 'why "so"', {})
    assert (answer.status, answer.headers) == (status, PRODUCT)
    said = json.loads(answer.body)
    assert (said["status"], said["error"]["reason"]) == (status, 'why "so"')


def cases(file: str, word: str = "") -> list[Any]:
    path = VECTORS / f"{file}.json"
    found = json.loads(path.read_text()) if path.is_file() else []
    return [pytest.param(case, id=case["name"]) for case in found if word in case["name"]]


def body_of(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["payload_hex"]) if "payload_hex" in case else str(case["body"]).encode()


def answered(case: dict[str, Any]) -> tuple[Answer, list[Record]]:
    try:
        taken = take(body_of(case), case["path"])
    except Malformed as error:
        return ELASTICSEARCH.refuse(400, str(error), {}), []
    return taken.answer, decoded(taken).records


@pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no folder {VECTORS}")
@pytest.mark.parametrize("case", cases("es_bulk"))
def test_what_the_tests_of_other_servers_expect(case: dict[str, Any]) -> None:
    answer, records = answered(case)
    documents = case.get("expected_docs", [])
    # An empty bulk is refused, as Elasticsearch does (section 11 of our rules).
    assert answer.status == (case.get("expected_status", 200) if case["valid"] and body_of(case).strip() else 400)
    assert len(records) == case.get("expected_count", len(documents) or len(records))
    for record, document in zip(records, documents, strict=False):
        assert (record.message, round(record.timestamp.timestamp() * 1e6) * 1000) == (
            document["message"],
            document["ts_ns"],
        )
    said, expected = json.loads(answer.body), case.get("expected_response", {})
    if "items" in expected:
        assert said["errors"] == expected["errors"]
        for item, wanted in zip(said["items"], expected["items"], strict=True):
            ((name, result),) = wanted.items()
            assert item[name] == {**item[name], **result}
    elif expected:
        assert said["status"] == expected["status"]
        assert said["error"]["reason"] == expected["error"]["reason"]


@pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no folder {VECTORS}")
@pytest.mark.parametrize("case", cases("wire_real_clients", "-es-"))
def test_what_the_python_client_sends(case: dict[str, Any]) -> None:
    taken = take(body_of(case), accept=case["sent"]["headers"]["accept"])
    first, second, third = decoded(taken).records
    assert first.message == '\u00dcn\u00efcode \u2713 "quoted" tab\there'
    assert (first.timestamp, first.severity) == (datetime(2024, 5, 1, 10, 0, 0, 123000, tzinfo=UTC), 6)
    assert rest(first) == {"nested": {"a": [1, 2, {"b": None}]}, "index": "logs-app-default"}
    assert (second.timestamp, rest(second)) == (first.timestamp, {"index": "idx", "_id": "7"})
    assert third.timestamp == NOW
    assert taken.answer.content_type == "application/vnd.elasticsearch+json; compatible-with=8"


pieces = st.sampled_from(
    [ACTION, b'{"index":{"_index":"i","_id":"1"}}\n', b'{"delete":{"_index":"i","_id":"1"}}\n', b'{"message":"good"}\n']
)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        pieces | st.binary(max_size=20) | st.sampled_from([b"\n", b"\r\n", b"{", b"\\u0000", b"[]\n"]), max_size=10
    )
)
def test_any_bytes_are_taken_or_malformed_and_items_are_as_many_as_actions(parts: list[bytes]) -> None:
    body = b"".join(parts)
    try:
        records, rejects, answer = bulk(body)
    except Malformed:
        return
    documents = sum("delete" not in item for item in answer["items"])
    assert len(records) <= documents <= len(records) + len(rejects)
    assert answer["errors"] == (documents == 0)
    for record in records:
        assert "\0" not in record.message + (record.attributes or "")


LINES = st.sampled_from(
    [
        *(
            ACTION[:-1],
            b'{"index":{}}',
            b'{"index":{"_id":"1"}}',
            b'{"delete":{"_index":"a"}}',
            b'{"update":{}}',
            b"bad",
        ),
        *(b"", b" ", b'{"message":"m"}', b'{"doc":{"message":"d"}}', b'{"message":"a\\u0000"}', b"[1]"),
    ]
)


@settings(deadline=None, max_examples=200)
@given(st.lists(LINES, max_size=4), st.booleans())
def test_the_quick_way_through_a_bulk_reads_what_the_other_does(
    lines: list[bytes], end: bool
) -> None:  # hypothesis gives it
    body = b"\n".join([*[ACTION[:-1], b'{"k":1}'] * 2, *lines]) + b"\n" * end
    quick = elasticsearch_module._of_few(body, "i")
    assert quick is None or quick == elasticsearch_module._of_any(body, "i", ORIGIN, [])
