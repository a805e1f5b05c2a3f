"""OTLP as other people's tests and programs send it, and anything else."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_otlp import (  # type: ignore[import-not-found]  # pytest has this folder on the path
    JSON,
    LOG,
    LOG_PROTOBUF,
    export,
    protobuf,
    rest,
    text,
)

from logagg.protocols.http import Malformed
from logagg.protocols.otlp import PROTOBUF

VECTORS = Path(__file__).parents[2] / "shared" / "vectors"


def cases(file: str, word: str = "") -> list[Any]:
    path = VECTORS / f"{file}.json"
    found = json.loads(path.read_text()) if path.is_file() else []
    return [pytest.param(case, id=case["name"]) for case in found if word in case["name"]]


def bodies(value: Any) -> list[str]:
    """All texts of bodies, wherever they are."""
    if isinstance(value, list):
        return [found for item in value for found in bodies(item)]
    if not isinstance(value, dict):
        return []
    body = value.get("body")
    own = [body["stringValue"]] if isinstance(body, dict) and "stringValue" in body else []
    return own + [found for item in value.values() for found in bodies(item)]


@pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no folder {VECTORS}")
@pytest.mark.parametrize("case", cases("otlp_logs_json"))
def test_what_the_tests_of_other_servers_expect(case: dict[str, Any]) -> None:
    try:
        records, rejects = export(case["body_json"])
    except Malformed:
        assert not case["valid"]
        return
    # What the peer refused whole is kept: each record, or its bytes in quarantine.
    assert [record.message for record in records if record.message in bodies(case["body_json"])] == bodies(
        case["body_json"]
    )
    assert not rejects or not case["valid"]
    expected = case.get("expected")
    if expected:
        (record,) = records
        assert (record.trace_id, record.span_id) == (expected["trace_id"], expected["span_id"])
        assert record.timestamp == datetime.fromtimestamp(expected["ts_ns"] / 1e9, UTC)
        assert record.service == expected["resource"]["service.name"]
        assert rest(record).items() >= expected["attributes"].items()


@pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no folder {VECTORS}")
@pytest.mark.parametrize("case", cases("wire_real_clients", "otlp"))
def test_what_the_python_exporter_sends(case: dict[str, Any]) -> None:
    from_protobuf = export(bytes.fromhex(case["payload_hex"]), PROTOBUF)
    assert from_protobuf == export(case["decoded_json"])
    first, second = from_protobuf.records
    assert (first.message, first.service, first.host, first.severity) == (
        'otlp \u00dcn\u00efcode \u2713 "quoted" tab\there',
        "shop",
        "h1",
        6,
    )
    assert rest(first)["user.id"] == 42
    assert (second.message, second.severity) == ("failed", 3)
    assert rest(second)["exception.message"] == "division by zero"


FIELDS = "resourceLogs resource scopeLogs scope logRecords attributes key value body values name"
KINDS = "stringValue intValue doubleValue arrayValue kvlistValue"
names = st.sampled_from([*FIELDS.split(), *KINDS.split(), *LOG])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=12,
)


@settings(deadline=None, max_examples=200)
@given(st.lists(anything, max_size=4), anything, anything)
def test_any_json_gives_records_or_rejects(logs: list[Any], resource: Any, scope: Any) -> None:
    of_scope = {"scope": scope, "logRecords": [{"body": text("good")}, *logs]}
    body = {"resourceLogs": [{"resource": resource, "scopeLogs": [of_scope]}]}
    records, rejects = export(json.dumps(body).encode(errors="surrogatepass"))
    assert records[0].message == "good"
    assert len(records) + len(rejects) == 1 + len(logs)
    for record in records:
        parts = [record.message, record.attributes, record.trace_id, record.span_id, record.service, record.host]
        assert "\0" not in "".join(filter(None, parts))
        "".join(filter(None, parts)).encode()
        assert record.timestamp.tzinfo is UTC


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 255))
def test_any_bytes_are_taken_or_malformed(body: bytes, place: int, byte: int) -> None:
    whole = bytearray(protobuf(LOG_PROTOBUF))
    whole[place % len(whole)] = byte
    for data, kind in ((body, PROTOBUF), (body, JSON), (bytes(whole), PROTOBUF)):
        try:
            export(data, kind)
        except Malformed as error:
            str(error).encode()
