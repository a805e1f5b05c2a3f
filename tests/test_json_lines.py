import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols import json_columns, jsontext
from logagg.protocols.clean import clean_text, clean_value, to_text
from logagg.protocols.columns import Columnar, from_records
from logagg.protocols.json_columns import FEW
from logagg.protocols.json_lines import decode_body, decode_lines
from logagg.protocols.mapping import FIELDS
from logagg.protocols.record import Decoded, Origin, Record, Reject

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
THEN = datetime(2026, 10, 11, 22, 14, 15, 3000, tzinfo=UTC)
ORIGIN = Origin(NOW, "tcp", "192.0.2.9", "staging")
GOOD = b'{"timestamp":"2026-10-11T22:14:15.003Z","level":"ERROR","message":"good"}'


def lines(*frames: bytes) -> Decoded:
    return decode_lines(frames, ORIGIN)


def one(obj: dict[str, Any] | bytes) -> Record:
    (record,), rejects = lines(obj if isinstance(obj, bytes) else json.dumps(obj).encode())
    assert rejects == []
    return record


def rest(record: Record) -> Any:
    return json.loads(record.attributes) if record.attributes is not None else None


# The bad input.


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"no json", "invalid JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"a":1', "invalid JSON: Expecting ',' delimiter: line 1 column 7 (char 6)"),
        (b'{"a":1} {"b":', "invalid JSON: more text after the value: char 7 of 13"),
        (b'{"a":1} 2', "invalid JSON: more text after the value: char 7 of 9"),
        (b"42", "JSON number, expected an object"),
        (b'"text"', "JSON string, expected an object"),
        (b"null", "JSON null, expected an object"),
        (b"true", "JSON boolean, expected an object"),
        (b"[]", "JSON array, expected an object"),
        (b"[1,{}]", "JSON array, expected an object"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "JSON nested too deeply"),
        (b"[" * 100_000, "JSON nested too deeply"),
        (b'\xff{"a":1}', "invalid JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_what_is_no_object_is_a_reject_and_costs_no_neighbour(line: bytes, reason: str) -> None:
    records, rejects = lines(GOOD, line, b" \t", GOOD)
    assert [record.message for record in records] == ["good", "good"]
    assert [reject[:3] for reject in rejects] == [(NOW, "tcp", "192.0.2.9")]
    assert rejects[0].reason.startswith(reason)
    assert rejects[0].raw == line


@pytest.mark.parametrize(
    ("line", "message", "attributes"),
    [
        (b'{"message":"a\\u0000b","k\\u0000":"\\u0000"}', "a\ufffdb", {"k\ufffd": "\ufffd"}),
        (b'{"message":"a\xffb","k\xff":["\xff"]}', "a\ufffdb", {"k\ufffd": ["\ufffd"]}),
        (b'{"message":"a\\ud800b","k\\udfff":{"\\udfff":1}}', "a\ufffdb", {"k\ufffd": {"\ufffd": 1}}),
        (b'{"message":"a\xed\xa0\x80b"}', "a\ufffd\ufffd\ufffdb", None),
        (b'{"message":"a\0b"}', "a\ufffdb", None),
        (
            b'{"message":"m","k":[NaN,Infinity,-Infinity,1e400,-1e400]}',
            "m",
            {"k": ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"]},
        ),
        (b'{"message":"m","k":NaN,"n":' + b"9" * 400 + b"}", "m", {"k": "NaN", "n": "9" * 400}),
    ],
)
def test_what_cannot_be_stored_is_replaced_and_the_bytes_are_kept(line: bytes, message: str, attributes: Any) -> None:
    record = one(line)
    assert (record.message, rest(record), record.raw) == (message, attributes, line)


@pytest.mark.parametrize(
    ("line", "message", "attributes"),
    [
        (b'{"message":"a\\\\u0000b"}', "a\\u0000b", None),
        (b'{"message":"a\tb\x01"}', "a\tb\x01", None),
        (b'\xef\xbb\xbf{"message":"m"}', "m", None),
        (b'{"message":"m","k":' + b"[" * 300 + b"]" * 300 + b"}", "m", ...),
        (b'{"message":"\\ud83d\\ude00","k":1e-400}', "\U0001f600", {"k": 0.0}),
        (
            b'{"message":"m","k":123456789012345678901234567890,"\\\\u0000":1}',
            "m",
            {"k": 123456789012345678901234567890, "\\u0000": 1},
        ),
    ],
)
def test_what_is_only_unusual_is_kept_as_it_is(line: bytes, message: str, attributes: Any) -> None:
    record = one(line)
    assert (record.message, record.raw) == (message, None)
    assert attributes is ... or rest(record) == attributes


def test_a_deep_object_that_can_be_read_but_not_written_is_a_reject() -> None:
    deep = b'{"message":"m","k":' + b"[" * 990 + b"]" * 990 + b"}"
    records, rejects = lines(GOOD, deep, GOOD)
    assert len(records) + len(rejects) == 3
    assert records[0].message == records[-1].message == "good"


def test_a_large_object() -> None:
    text = "x" * 10_000_000
    assert one({"message": text}).message == text


@pytest.mark.parametrize(
    "line",
    [
        b'[{"message":"a"},{"message":"b"}]',
        b'[{"message":"a"}][{"message":"b"}]',
        b'{"message":"a"}{"message":"b"}',
        b'{"message":"a"}, {"message":"b"}',
        b'[{"message":"a"},\t{"message":"b","k":"\\u0000"}]',
    ],
)
def test_a_line_of_many_objects_is_many_records(line: bytes) -> None:
    records, rejects = lines(GOOD, line, GOOD)
    assert [record.message for record in records] == ["good", "a", "b", "good"]
    assert rejects == []


def test_a_line_with_objects_and_more_is_told_apart() -> None:
    records, rejects = lines(b'[{"message":"a"},7,{"message":"b"}]', b'{"message":"c"}{"message":"d"}rest')
    assert [record.message for record in records] == ["a", "b"]
    assert [reject.raw for reject in rejects] == [b"7", b'{"message":"c"}{"message":"d"}rest']


# Bodies.


@pytest.mark.parametrize(
    "body",
    [
        b'[{"message":"a"},{"message":"b"}]',
        b'[\n  {"message":"a"},\n  {"message":"b"}\n]\n',
        b'{"message":"a"}\n{"message":"b"}\n',
        b'{"message":"a"}\r\n\r\n{"message":"b"}',
        b'\n \n{"message":"a"}\n\n\n{"message":"b"}\n ',
        b'{"message":"a"}{"message":"b"}',
        b'{"message":"a","k":"}{"}{"message":"b"}',
        b'{"message":"a","k":[{}]}{"message":"b"}\n',
        b'{"records":[{"value":{"message":"a"}},{"key":"k","value":{"message":"b"}}]}',
        b'{"message":"a"} {"message":"b"}',
        b'{"message":"a"},\n{"message":"b"},\n',
        b'{\n  "message": "a"\n}\n{\n  "message": "b"\n}\n',
        b'[{"message":"a"}]\n[{"message":"b"}]\n',
        b'[{"message":"a"}][{"message":"b"}]',
        b'\x1e{"message":"a"}\n\x1e{"message":"b"}\n',
        b'\xef\xbb\xbf[{"message":"a"},{"message":"b"}]',
    ],
)
def test_forms_of_a_body(body: bytes) -> None:
    records, rejects = decode_body(body, ORIGIN)
    assert [record.message for record in records] == ["a", "b"]
    assert rejects == []


@pytest.mark.parametrize(
    "body", [b'{"message":"a"}', b'{\n "message": "a"\n}', b'[{"message":"a"}]', b' {"message":"a"}\n']
)
def test_a_body_of_one(body: bytes) -> None:
    assert [record.message for record in decode_body(body, ORIGIN).records] == ["a"]


def test_records_of_another_kind_are_an_attribute() -> None:
    for body in (b'{"records":[{"value":{}}],"k":1}', b'{"records":[1]}', b'{"records":{"value":1}}'):
        (record,), rejects = decode_body(body, ORIGIN)
        assert (rest(record) or {})["records"] == json.loads(body)["records"]
        assert rejects == []


@pytest.mark.parametrize("form", [b"[%s]", b"%s", b'{"records":[%s]}'], ids=["array", "stream", "kafkarest"])
def test_bodies_of_fluent_bit_and_rsyslog(form: bytes) -> None:
    """A `date` as double; in any of the forms, and more than a few."""
    objects = [{"date": 1791756855.003, "log": f"{{}}}}{{ {n}"} for n in range(FEW)]
    items = [json.dumps({"value": obj} if b"records" in form else obj).encode() for obj in objects]
    for body in (
        form % (b"" if form == b"%s" else b",").join(items),
        form % (b"\n" if form == b"%s" else b",\n").join(items),
    ):
        for decode in (decode_body, json_columns.decode_body):
            decoded = decode(body, ORIGIN)
            frame = decoded.records if isinstance(decoded, Columnar) else from_records(decoded.records)
            assert frame["message"].to_list() == [obj["log"] for obj in objects]
            assert set(frame["timestamp"]) == {THEN}
            assert decoded.rejects == []


@pytest.mark.parametrize("body", [b"", b" \r\n\t", b"[]", b" [ ]\n"])
def test_a_body_of_none(body: bytes) -> None:
    assert decode_body(body, ORIGIN) == ([], [])


@pytest.mark.parametrize(
    ("body", "messages", "raws"),
    [
        (b'[{"message":"a"},1,null,{"message":"b"}]', ["a", "b"], [b"1", b"null"]),
        (b'{"message":"a"}\nbad\n{"message":"b"}\n', ["a", "b"], [b"bad"]),
        (b'bad\n{"message":"a"}\n{"message":"b"}\n', ["a", "b"], [b"bad\n"]),
        (b'{"message":"a"}\n{"message":\n{"message":"b"}\n', ["a", "b"], [b'{"message":']),
        (b'[{"message":"a"},{"message":"b"},{bad}]', ["a", "b"], [b"{bad}"]),
        (b'{"message":"a"}{"message":"b"}{"mess', ["a", "b"], [b'{"mess']),
        (b'[{"message":"a"},{"message":"b\\u0000"}]', ["a", "b\ufffd"], []),
        (b'[{"message":"a\xff"},2,{"message":"b"}]', ["a\ufffd", "b"], [b"2"]),
        (b"42", [], [b"42"]),
        (b"[[[[", [], [b"[[[["]),
        (b"\xff\xfe", [], [b"\xff\xfe"]),
    ],
)
def test_bad_items_of_a_body_are_rejects_and_cost_no_neighbour(
    body: bytes, messages: list[str], raws: list[bytes]
) -> None:
    records, rejects = decode_body(body, ORIGIN)
    assert [record.message for record in records] == messages
    assert [reject.raw for reject in rejects] == raws


def test_only_what_was_replaced_keeps_its_bytes() -> None:
    records, _ = decode_body(b'[{"message":"a"}, {"message":"b\xff"}]', ORIGIN)
    assert [record.raw for record in records] == [None, b'{"message":"b\xff"}']


def test_a_body_of_many_bad_places_is_read_in_linear_time() -> None:
    body = b'{"a":[\n' * 20_000 + b'{"message":"last"}\n'
    records, rejects = decode_body(b"bad\n" + body, ORIGIN)
    assert [record.message for record in records] == ["last"]
    assert b"".join(reject.raw for reject in rejects).count(b"[") == 20_000


# Whatever comes.

texts = st.text(st.characters(codec=None), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts
names = st.sampled_from([name for column in FIELDS.values() for name in column]) | st.sampled_from(
    ["log", "trace", "k"]
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | texts, inner, max_size=3), max_leaves=6
)
usual = st.sampled_from(
    ["2026-10-11T22:14:15.003Z", "2026-10-11T22:14:15", "20261011", "INFO", "error", "", "x", 5, 30, None]
)
objects = st.dictionaries(names, usual | values, max_size=8)


def check(record: Record) -> None:
    for text in (
        record.message,
        record.service,
        record.host,
        record.source,
        record.environment,
        record.trace_id,
        record.attributes,
    ):
        assert "\0" not in (text or "")
        (text or "").encode()
    assert "\\u0000" not in (record.attributes or "").replace("\\\\", "")
    json.loads(record.attributes or "{}", parse_constant=pytest.fail)
    assert 0 <= record.severity <= 7
    assert record.timestamp.tzinfo is UTC


@settings(deadline=None, max_examples=200)
@given(objects)
def test_any_object_is_a_record(obj: dict[str, Any]) -> None:
    frame = json.dumps(obj, ensure_ascii=len(obj) % 2 == 0).encode(errors="surrogatepass")
    check(one(frame))
    (record,), _ = decode_body(b"[" + frame + b"]", ORIGIN)
    check(record)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.binary(max_size=30) | st.sampled_from([GOOD, b"{", b"[", b"\n", b'"', b"\\u0000", b",", b"}"]), max_size=8
    )
)
def test_any_bytes_are_records_or_rejects(pieces: list[bytes]) -> None:
    for records, rejects in (decode_lines(pieces, ORIGIN), decode_body(b"".join(pieces), ORIGIN)):
        for record in records:
            check(record)
        for reject in rejects:
            assert isinstance(reject, Reject)
            assert "\0" not in reject.reason
            reject.reason.encode()
    assert sum(record.message == "good" for record in decode_lines(pieces, ORIGIN).records) == pieces.count(GOOD)


@settings(deadline=None)
@given(st.binary(max_size=40), values)
def test_cleaning(data: bytes, value: Any) -> None:
    text, replaced = to_text(data)
    assert replaced == (text.encode() != data)
    assert clean_text(text) == text
    assert clean_value(clean_value(value)) == clean_value(value) or "nan" in repr(value)


def test_json_text_of_what_was_read() -> None:
    assert (
        jsontext.dumps(jsontext.loads(b'{"a":[1,"x",1e5,null,12345678901234567890]}').value)
        == '{"a":[1,"x",100000.0,null,12345678901234567890]}'
    )
