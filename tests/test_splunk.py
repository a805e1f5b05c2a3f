import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.columns import Columnar
from logagg.protocols.http import Answer, Malformed, Request, Taken
from logagg.protocols.json_columns import FEW
from logagg.protocols.record import Origin, Record
from logagg.protocols.splunk import SPLUNK, decode_events, decode_raw, splunk

if TYPE_CHECKING:
    from logagg.tests.decoded import in_records, messages, rest
else:
    from decoded import in_records, messages, rest

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
THEN = datetime(2023, 11, 14, 22, 13, 20, 253000, tzinfo=UTC)
ORIGIN = Origin(NOW, "splunk", "192.0.2.9", "staging")


def one(obj: dict[str, Any]) -> Record:
    (record,), rejects = in_records(decode_events(json.dumps(obj).encode(), ORIGIN))
    assert rejects == []
    return record


def event(text: str) -> bytes:
    return json.dumps({"event": text}).encode()


def ask(path: str, body: bytes = b"", query: dict[str, str] | None = None, **headers: str) -> Request:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", f"/services/collector{path}", query or {}, names, body, 1 << 20)


def told(answer: Answer) -> Any:
    return json.loads(answer.body)


# Events.


def test_an_event_of_text_in_a_whole_envelope() -> None:
    record = one(
        {
            "time": 1700000000.253,
            "host": "web-1",
            "source": "shop.log",
            "sourcetype": "access",
            "index": "main",
            "event": "hello",
            "fields": {"service": "shop", "level": "error", "region": "eu"},
        }
    )
    assert (record.timestamp, record.received_at, record.host, record.source) == (THEN, NOW, "web-1", "shop.log")
    assert (record.message, record.service, record.severity, record.environment) == ("hello", "shop", 3, "staging")
    assert rest(record) == {"sourcetype": "access", "index": "main", "region": "eu"}


@pytest.mark.parametrize("time", [1700000000.253, "1700000000.253", 1700000000253, "1700000000253"])
def test_times(time: object) -> None:
    assert one({"time": time, "event": "m"}).timestamp == THEN


def test_without_time_host_and_source_they_are_those_of_the_request() -> None:
    record = one({"event": "m", "time": None, "host": "", "source": None})
    assert (record.timestamp, record.host, record.source, record.attributes) == (NOW, None, "192.0.2.9", None)


def test_an_event_that_is_an_object_is_mapped_as_any_other() -> None:
    record = one({"event": {"msg": "hello", "severity": "WARN", "logger": "a.b", "ts": 1700000000.253}, "host": "h"})
    assert (record.message, record.severity, record.host, record.timestamp) == ("hello", 4, "h", THEN)
    assert rest(record) == {"logger": "a.b"}


def test_the_envelope_wins_and_what_it_hides_is_kept() -> None:
    record = one(
        {
            "time": 1700000000.253,
            "host": "h",
            "source": "s",
            "event": {"message": "m", "host": "other", "source": "s", "timestamp": "2020-01-01T00:00:00Z"},
            "fields": {"host": "third", "message": "no", "a": 1},
        }
    )
    assert (record.timestamp, record.host, record.source, record.message) == (THEN, "h", "s", "m")
    assert rest(record) == {
        "event": {"host": "other", "timestamp": "2020-01-01T00:00:00Z"},
        "fields": {"host": "third", "message": "no"},
        "a": 1,
    }


def test_nothing_is_lost_where_names_meet() -> None:
    record = one({"event": "text", "message": "mine", "fields": {"fields": 1, "message": "other"}, "timestamp": 5})
    assert record.message == "mine"
    assert rest(record) == {"event": {"message": "text"}, "fields": 1, "_fields": {"message": "other"}}
    assert rest(one({"event": "text", "fields": [1]})) == {"fields": [1]}


@pytest.mark.parametrize(("value", "message"), [(5, "5"), ([1, "a"], '[1,"a"]'), (True, "true"), ("", "")])
def test_an_event_of_another_kind_is_its_json(value: object, message: str) -> None:
    assert one({"event": value}).message == message


# Bodies.


@pytest.mark.parametrize(
    "body",
    [
        event("a") + event("b"),
        event("a") + b"\n" + event("b") + b"\n",
        event("a") + b"\r\n\r\n" + event("b"),
        event("a") + b" " + event("b"),
        b"[" + event("a") + b"," + event("b") + b"]",
        b'{\n  "event": "a"\n}\n{\n  "event": "b"\n}\n',
        b"\n" + event("a") + b",\n" + event("b"),
    ],
)
def test_forms_of_a_body(body: bytes) -> None:
    decoded = decode_events(body, ORIGIN)
    assert (messages(decoded), decoded.rejects) == (["a", "b"], [])


def test_braces_within_a_text_are_text() -> None:
    texts = ["a}{b", '"}{"', '"}\n{"', "\\"]
    assert messages(decode_events(b"".join(map(event, texts)), ORIGIN)) == texts
    assert messages(decode_events(b"\n".join(map(event, texts)), ORIGIN)) == texts


@pytest.mark.parametrize(
    ("body", "raws"),
    [
        (event("a") + b"\nbad\n" + event("b"), [b"bad\n"]),
        (event("a") + b"\n1\n" + event("b"), [b"1"]),
        (b"[" + event("a") + b",null," + event("b") + b"]", [b"null"]),
        (event("a") + b'{"event":\n' + event("b"), [b'{"event":\n']),
        (event("a") + b"\n" + event("b") + b'\n{"eve', [b'{"eve']),
        (event("a") + event("b") + b'{"a":' * 9000, [b'{"a":' * 9000]),
    ],
)
def test_a_bad_event_is_a_reject_and_costs_no_neighbour(body: bytes, raws: list[bytes]) -> None:
    decoded = decode_events(body, ORIGIN)
    assert [reject.raw for reject in decoded.rejects] == raws
    assert messages(decoded) == ["a", "b"]


def test_what_cannot_be_stored_is_replaced_and_the_bytes_are_kept() -> None:
    bad = b'{"event":"a\\u0000}{b\xff"}'
    records, rejects = in_records(decode_events(event("good") + bad, ORIGIN))
    assert [(record.message, record.raw) for record in records] == [("good", None), ("a\ufffd}{b\ufffd", bad)]
    assert rejects == []


def test_a_body_of_many_bad_places_is_read_in_linear_time() -> None:
    body = b'{"a":["\n' * 20_000 + event("last")
    decoded = decode_events(b"bad\n" + body, ORIGIN)
    assert messages(decoded) == ["last"]
    assert sum(reject.raw.count(b"[") for reject in decoded.rejects) == 20_000


def test_what_can_be_read_but_not_written_is_a_reject() -> None:
    deep = b'{"event":{"a":' + b"[" * 990 + b"]" * 990 + b"}}"
    decoded = decode_events(event("a") + b"\n" + deep + b"\n" + event("b"), ORIGIN)
    assert len(decoded.records) + len(decoded.rejects) == 3
    assert messages(decoded)[:: len(decoded.records) - 1] == ["a", "b"]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.binary(max_size=20)
        | st.sampled_from([event("good"), b"{", b"}", b"[", b"\n", b'"', b"\\u0000", b'{"event":'])
    )
)
def test_any_body_is_records_or_rejects(pieces: list[bytes]) -> None:
    body = b"\n".join([event("first"), *pieces])
    decoded = decode_events(body, ORIGIN)
    kept = b"".join(reject.raw for reject in decoded.rejects) + "".join(messages(decoded)).encode()
    assert b"first" in kept
    for record in in_records(decoded).records:
        assert "\0" not in record.message + (record.attributes or "")
    raw = decode_raw(body, {}, ORIGIN)
    assert len(raw.records) == len([line for line in body.split(b"\n") if line.decode(errors="replace").strip()])


EVENTS = st.fixed_dictionaries(
    {"event": st.text(max_size=6) | st.dictionaries(st.sampled_from(["message", "level", "k", "host"]), st.just("x"))},
    optional={"time": st.integers(1, 2_000_000_000), "host": st.just("h"), "fields": st.just({"service": "}{"})},
)


@settings(deadline=None, max_examples=100)
@given(st.lists(EVENTS, min_size=1, max_size=3))
def test_many_events_are_the_same_as_each_for_itself(some: list[dict[str, Any]]) -> None:
    bodies = [json.dumps(obj).encode() for obj in some] * FEW
    decoded = decode_events(b"".join(bodies), ORIGIN)
    assert decoded.rejects == []
    assert in_records(decoded).records == [one(json.loads(body)) for body in bodies]


def test_events_whose_text_has_braces_are_read_as_quickly() -> None:
    assert isinstance(decode_events(event("}{") * FEW, ORIGIN), Columnar)
    assert messages(decode_events(event("}{" * 20) * FEW, ORIGIN)) == ["}{" * 20] * FEW


# Lines.


def test_lines_are_records_and_the_query_says_whose() -> None:
    query = {"host": "h", "source": "s", "sourcetype": "access", "index": "main", "channel": "c"}
    decoded = decode_raw(b'one\r\n\n  two\n{"a":1}\n \nthree\xff', query, ORIGIN)
    assert messages(decoded) == ["one", "  two", '{"a":1}', "three\ufffd"]
    for record in decoded.records:
        assert (record.host, record.source, record.timestamp, record.severity) == ("h", "s", NOW, 6)
        assert rest(record) == {"sourcetype": "access", "index": "main"}
    assert [record.raw for record in decoded.records] == [None, None, None, b"three\xff"]


# The protocol.


def take(request: Request) -> Taken:
    return SPLUNK.take(request, ORIGIN)


@pytest.mark.parametrize("path", ["", "/event", "/event/1.0", "/raw", "/raw/1.0"])
def test_what_was_stored_is_answered_with_success(path: str) -> None:
    assert ("POST", f"/services/collector{path}") in [route[:2] for route in SPLUNK.routes]
    taken = take(ask(path, event("m")))
    assert taken.decoded.records[0].message == (event("m").decode() if "raw" in path else "m")  # type: ignore[union-attr]  # a list
    assert (taken.answer.status, told(taken.answer)) == (200, {"text": "Success", "code": 0})


def test_who_has_a_channel_gets_numbers_and_hears_that_they_are_indexed() -> None:
    protocol = splunk()
    by_header = ask("/event", event("m"), x_splunk_request_channel="c")
    by_query = ask("/raw", b"line", {"channel": "c"})
    answers = [told(protocol.take(request, ORIGIN).answer) for request in (by_header, by_query)]
    assert answers == [{"text": "Success", "code": 0, "ackId": number} for number in (0, 1)]
    answer = protocol.ask["POST", "/services/collector/ack"](ask("/ack", b'{"acks":[0,1]}'))
    assert (answer.status, told(answer)) == (200, {"acks": {"0": True, "1": True}})


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"acks":5}', b'{"acks":[null]}', b'{"acks":["x"]}', b"\xff"])
def test_a_question_that_cannot_be_read(body: bytes) -> None:
    answer = SPLUNK.ask["POST", "/services/collector/ack/1.0"](ask("/ack/1.0", body))
    assert (answer.status, told(answer)["code"]) == (400, 6)


def test_health() -> None:
    for path in ("/services/collector/health", "/services/collector/health/1.0"):
        assert SPLUNK.ask["OPTIONS", "/services/collector"](Request("OPTIONS", path, {}, {}, b"", 0)).status == 200
        answer = SPLUNK.ask["GET", path](Request("GET", path, {}, {}, b"", 0))
        assert (answer.status, told(answer)["code"]) == (200, 17)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [("", b"", 5), ("", b" \n", 5), ("/raw", b"\n", 5), ("", b"bad", 6), ("/event", b"[1]", 6)],
)
def test_a_body_without_an_event_is_refused(path: str, body: bytes, code: int) -> None:
    with pytest.raises(Malformed) as error:
        take(ask(path, body))
    answer = SPLUNK.refuse(400, str(error.value), {})
    assert (answer.status, told(answer)["code"]) == (400, code)
    assert code == 5 or told(answer)["invalid-event-number"] == 0


@pytest.mark.parametrize(("status", "code"), [(401, 2), (403, 4), (413, 27), (503, 9), (408, 6), (415, 6)])
def test_refusals_keep_their_status_and_have_a_code(status: int, code: int) -> None:
    answer = SPLUNK.refuse(status, "why", {})
    assert (answer.status, told(answer)["code"]) == (status, code)
    assert (told(answer)["text"] == "why") == (status in (401, 403))  # code 4 is "Invalid token", which it need not be
