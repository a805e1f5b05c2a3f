"""Vectors of other people's test suites, read in place: `../shared/vectors/README.md` says what they are."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from logagg.protocols.framing import LineFramer, SyslogFramer
from logagg.protocols.json_lines import decode_body, decode_lines
from logagg.protocols.record import NOTE, Origin, Record
from logagg.protocols.syslog import decode_syslog

VECTORS = Path(__file__).parents[2] / "shared" / "vectors"
pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason=f"no folder {VECTORS}")

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PEER = "192.0.2.99"
ORIGIN = Origin(NOW, "syslog", PEER)

MESSAGE_FILES = (
    *("beats", "crewjam", "easypost", "fluentbit", "gosyslog_rfc3164", "gosyslog_rfc5424", "logstash", "otel_contrib"),
    *("realworld_beats_system", "realworld_crowdsec", "syslog_loose", "telegraf", "victorialogs"),
)
#: Where a rule of ours ("Where servers disagree") says otherwise than the peer: the field, and the rule.
OUR_RULE_WINS = {
    ("easypost-6", "message"): "5: one leading blank of an RFC 5424 MSG is stripped, rsyslog puts it there",
    ("crewjam-4", "timestamp"): "no year 0 in PostgreSQL's or Python's calendar: the time of receipt, and a note",
    ("crewjam-5", "timestamp"): "the same",
}

WORD = re.compile(r"[^\W\d_]{2,}")
MONTHS = frozenset(["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"])


def vectors(*names: str) -> list[Any]:
    """One test parameter a vector; none where the folder is absent."""
    files = [VECTORS / f"{name}.json" for name in names]
    cases = [case for file in files if file.is_file() for case in json.loads(file.read_text())]
    return [pytest.param(case, id=case["name"]) for case in cases]


def frame_of(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["input_hex"]) if "input_hex" in case else case["input"].encode()


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def decode(case: dict[str, Any]) -> Record:
    """Decode at a time and in a zone at which the peer's own test would have run."""
    expected, opts = case.get("expected") or {}, case.get("opts") or {}
    now, zone = NOW, None
    stamp = expected.get("timestamp")
    if stamp not in (None, "RECEIVE_TIME") and not stamp.startswith("0000"):
        now = instant(stamp).astimezone(UTC) + timedelta(hours=1)
        zone = instant(stamp).tzinfo
    elif "timestamp_year" in expected:
        now = instant(f"{expected['timestamp_year']}-{expected['timestamp_md']}+00:00") + timedelta(hours=1)
    decoded = decode_syslog([frame_of(case)], ORIGIN._replace(now=now), zone or ZoneInfo(opts.get("tz", "UTC")))
    assert decoded.rejects == []
    assert len(decoded.records) == 1
    return decoded.records[0]


def stripped(text: str) -> str:
    return text.rstrip("\r\n\0").removeprefix("\ufeff")


def told(record: Record) -> dict[str, Any]:
    """The record in the words of the vectors."""
    attributes = json.loads(record.attributes or "{}")
    return {
        "pri": (record.facility or 0) * 8 + record.severity,
        "facility": record.facility,
        "severity": record.severity,
        "hostname": None if record.host == PEER else record.host,
        "app": record.service,
        "procid": attributes.get("procid"),
        "msgid": attributes.get("msgid"),
        "sd": attributes.get("sd", {}),
        "message": stripped(record.message),
        "message_lstrip": stripped(record.message).lstrip(),
        "timestamp": None if record.timestamp == record.received_at else record.timestamp,
        "timestamp_md": record.timestamp.strftime("%m-%dT%H:%M:%S"),
        "timestamp_year": record.timestamp.year,
    }


def wanted(field: str, value: Any) -> Any:
    """What the peer expects, in the form of `told`."""
    if field in ("message", "message_lstrip"):
        text = bytes.fromhex(value["hex"]).decode(errors="replace") if isinstance(value, dict) else value or ""
        return stripped(text)
    if field == "sd":
        return value or {}
    if value == "LOCAL_OR_PEER_HOST" or (field == "timestamp" and value == "RECEIVE_TIME"):
        return None
    if field == "timestamp" and value is not None:
        return instant(value)
    if field == "timestamp_md":
        return value.split(".")[0]
    return value


def differences(case: dict[str, Any], record: Record, expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    got = told(record)
    return {
        field: (got[field], wanted(field, value))
        for field, value in expected.items()
        if field in got and (case["name"], field) not in OUR_RULE_WINS and got[field] != wanted(field, value)
    }


@pytest.mark.parametrize("case", vectors(*MESSAGE_FILES))
def test_a_message_is_read_as_its_peer_reads_it(case: dict[str, Any]) -> None:
    record = decode(case)
    if case["tier"] == "A-core" and case["valid"] and case["expected"]:
        assert differences(case, record, case["expected"]) == {}


@pytest.mark.parametrize("case", vectors(*MESSAGE_FILES))
def test_no_word_of_a_message_is_lost(case: dict[str, Any]) -> None:
    """Whatever the peer made of it, and above all where it refused it."""
    record = decode(case)
    frame = frame_of(case)
    kept = " ".join(filter(None, [record.message, record.host, record.service, record.attributes]))
    for word in WORD.findall(frame.decode(errors="replace")):
        assert word in kept or word in MONTHS
    if record.raw is not None:
        assert record.raw == frame


@pytest.mark.parametrize("case", vectors(*MESSAGE_FILES))
def test_a_dialect_keeps_the_text_that_the_peer_found(case: dict[str, Any]) -> None:
    message = (case.get("expected") or {}).get("message")
    if case["valid"] and isinstance(message, str):
        assert stripped(message).strip() in decode(case).message or message in json.dumps(
            told(decode(case)), default=str
        )


STREAMS = vectors("framing_gosyslog", "framing_misc", "framing_telegraf")
#: But for one with the PROXY protocol, which is not read.
READ_STREAMS = [case for case in STREAMS if case.values[0]["valid"] and case.id != "logstash-proxy-v1"]


def feed(case: dict[str, Any], step: int) -> tuple[SyslogFramer, list[bytes]]:
    """Frames of a stream in pieces of `step` bytes; 0 means as it was sent."""
    stream = frame_of(case)
    pieces = [bytes.fromhex(piece) for piece in case.get("chunks_hex", [])] or [stream]
    if step:
        pieces = [stream[start : start + step] for start in range(0, len(stream), step)]
    framer = SyslogFramer((case.get("opts") or {}).get("max_message_length", 8192))
    frames = [frame for piece in pieces for frame in framer.feed(piece)]
    return framer, frames + framer.close()


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize("case", READ_STREAMS)
def test_a_stream_is_cut_as_its_peer_cuts_it(case: dict[str, Any], step: int) -> None:
    framer, frames = feed(case, step)
    assert (framer.take_cut(), framer.take_broken()) == ([], [])
    assert len(frames) == len(case["expected_messages"])
    for frame, expected in zip(frames, case["expected_messages"], strict=True):
        if isinstance(expected, str):
            assert frame.decode() == expected
        else:
            record = decode_syslog([frame], ORIGIN).records[0]
            assert differences(case, record, {**expected, "message": real_newlines(expected["message"])}) == {}


@pytest.mark.parametrize("case", STREAMS)
def test_a_stream_that_its_peer_refuses_is_kept(case: dict[str, Any]) -> None:
    framer, frames = feed(case, 0)
    cut = framer.take_cut()
    kept = b"".join(frames + [frame for frame, _ in cut] + [raw for raw, _ in framer.take_broken()])
    lost = len(frame_of(case)) - len(kept)
    ends_and_counts = sum(map(len, re.findall(rb"[\r\n\0]|[1-9][0-9]{0,7} ", frame_of(case))))
    assert lost - sum(length - len(frame) for frame, length in cut) <= ends_and_counts


def real_newlines(message: str | None) -> str | None:
    """Telegraf's expectation stands in its line protocol, where a newline is two characters."""
    return message.replace("\\n", "\n") if message else message


def json_bytes(case: dict[str, Any]) -> bytes:
    if case["input_hex"] is not None:
        return bytes.fromhex(case["input_hex"])
    return {"'['*100000": b"[" * 100_000}.get(case["input_gen"], b'[{"":' * 50_000 + b"\n")


def storable(record: Record) -> bool:
    texts = [field for field in record if isinstance(field, str)]
    return all("\0" not in text and text.encode() for text in texts if text)


@pytest.mark.parametrize("case", vectors("jsontestsuite"))
def test_a_line_of_any_json_leaves_its_neighbours_alone(case: dict[str, Any]) -> None:
    line = json_bytes(case)
    good = b'{"timestamp":"2026-11-22T12:00:00Z","level":"INFO","message":"good %d"}\n'
    framer = LineFramer(1 << 20)
    frames = framer.feed(good % 1 + line.rstrip(b"\n") + b"\n" + good % 2)
    decoded = decode_lines(frames, ORIGIN)
    messages = [record.message for record in decoded.records]
    assert [messages[0], messages[-1]] == ["good 1", "good 2"]
    assert all(map(storable, decoded.records))
    assert len(decoded.records) + len(decoded.rejects) == len([frame for frame in frames if frame.strip()])
    if not case["contains_newline"]:
        stored = len(messages) == 3
        assert stored or case["expect_ndjson_listener"] != "store"
        assert not stored or case["class"] != "must_reject"


@pytest.mark.parametrize("case", vectors("jsontestsuite"))
def test_a_body_of_any_json_does_no_harm(case: dict[str, Any]) -> None:
    decoded = decode_body(json_bytes(case), ORIGIN)
    assert all(map(storable, decoded.records))
    assert decoded.records or decoded.rejects or not json_bytes(case).strip(b" []\r\n\t")
    if case["expect_ndjson_listener"] == "store":
        assert len(decoded.records) == 1


@pytest.mark.parametrize("case", vectors("ndjson_http"))
def test_a_body_gives_the_records_that_its_peer_found(case: dict[str, Any]) -> None:
    decoded = decode_body(case["body"].encode(), ORIGIN)
    if not case["valid"]:
        assert decoded.rejects or all(NOTE in (record.attributes or "") for record in decoded.records)
        return
    got = [(round(record.timestamp.timestamp() * 1e6) * 1000, record.message) for record in decoded.records]
    assert got == [(doc["ts_ns"], doc["message"]) for doc in case["expected_docs"]]
