import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.record import NOTE, Origin, Record
from logagg.protocols.syslog import decode_syslog

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORIGIN = Origin(NOW, "syslog-udp", "192.0.2.9", "staging")


def one(frame: bytes | str) -> Record:
    data = frame.encode() if isinstance(frame, str) else frame
    (record,), rejects = decode_syslog([data], ORIGIN)
    assert rejects == []
    return record


def told(frame: bytes | str) -> tuple[Any, ...]:
    """Host, service, message and attributes."""
    record = one(frame)
    return record.host, record.service, record.message, json.loads(record.attributes or "{}")


def test_every_field_of_rfc5424() -> None:
    frame = '<165>1 2003-10-11T22:14:15.003Z web evntslog 8710 ID47 [exampleSDID@32473 iut="3"][b] An event'
    assert one(frame) == Record(
        timestamp=datetime(2003, 10, 11, 22, 14, 15, 3000, tzinfo=UTC),
        received_at=NOW,
        severity=5,
        facility=20,
        environment="staging",
        host="web",
        service="evntslog",
        source="192.0.2.9",
        message="An event",
        attributes='{"procid":"8710","msgid":"ID47","sd":{"exampleSDID@32473":{"iut":"3"},"b":{}}}',
        trace_id=None,
        span_id=None,
        raw=None,
    )


def test_every_field_of_rfc3164() -> None:
    assert one("<34>Oct 11 22:14:15 mymachine su[231]: 'su root' failed") == Record(
        timestamp=datetime(2026, 10, 11, 22, 14, 15, tzinfo=UTC),
        received_at=NOW,
        severity=2,
        facility=4,
        environment="staging",
        host="mymachine",
        service="su",
        source="192.0.2.9",
        message="'su root' failed",
        attributes='{"procid":"231"}',
        trace_id=None,
        span_id=None,
        raw=None,
    )


def test_nothing_said_is_the_sender_and_the_time_of_receipt() -> None:
    assert one("<13>1 - - - - - -")[:9] == (NOW, NOW, 5, 1, "staging", "192.0.2.9", None, "192.0.2.9", "")
    assert one("<13>hello")[:9] == (NOW, NOW, 5, 1, "staging", "192.0.2.9", None, "192.0.2.9", "hello")


PEER = "192.0.2.9"
T = "2026-11-22T12:00:00Z"


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        # Structured data: escapes, names that repeat, and what is none.
        (rf'<13>1 {T} h a - - [x k="a\"b\\c\]d\e"] m', ("h", "a", "m", {"sd": {"x": {"k": 'a"b\\c]d\\e'}}})),
        (f'<13>1 {T} h a - - [x k="1" k="2" k="3"] m', ("h", "a", "m", {"sd": {"x": {"k": ["1", "2", "3"]}}})),
        (f'<13>1 {T} h a - - [x k="1"][x l="2"] m', ("h", "a", "m", {"sd": {"x": {"k": "1", "l": "2"}}})),
        (f'<13>1 {T} h a - - [x k="a]b" ] m', ("h", "a", "m", {"sd": {"x": {"k": "a]b"}}})),
        (f"<13>1 {T} h a - - [meta sequenceId=10] m", ("h", "a", "[meta sequenceId=10] m", {})),
        (f'<13>1 {T} h a - - [x k="1"]m', ("h", "a", '[x k="1"]m', {})),
        (f"<13>1 {T} h a - - no data", ("h", "a", "no data", {})),
        (f"<13>1 {T} h a - - -", ("h", "a", "", {})),
        (f"<13>1 {T} h {'a' * 99} - {'i' * 99} - m", ("h", "a" * 99, "m", {"msgid": "i" * 99})),
        # One blank and a BOM before the message are the sender's, the rest is the message's.
        (f"<13>1 {T} h a - - -  m ", ("h", "a", "m ", {})),
        (f"<13>1 {T} h a - - -   m", ("h", "a", " m", {})),
        (f"<13>1 {T} h a - - - \ufeffm\ufeff", ("h", "a", "m\ufeff", {})),
        (f"<13>1 {T} h a - - - two\nlines\n", ("h", "a", "two\nlines", {})),
        # Other versions, and no PRI.
        (f"<13>2 {T} h a 1 - - m", ("h", "a", "m", {"procid": "1"})),
        (f"1 {T} h a 1 - - m", ("h", "a", "m", {"procid": "1"})),
        ("1 - - one two three four", (PEER, None, "1 - - one two three four", {NOTE: "not syslog"})),
        ("<13>1 is the loneliest number that you know", (PEER, None, "1 is the loneliest number that you know", {})),
        ("<13>1 2003-10-11T22:14:15Z host", (PEER, None, "1 2003-10-11T22:14:15Z host", {})),
        # A time that is none.
        (
            "<13>1 0000-10-11T22:14:15Z h a - - - m",
            ("h", "a", "m", {"timestamp": "0000-10-11T22:14:15Z", NOTE: "timestamp out of range"}),
        ),
        (
            "<13>Feb 30 22:14:15 h a: m",
            ("h", "a", "m", {"timestamp": "Feb 30 22:14:15", NOTE: "timestamp not understood"}),
        ),
        # Tags.
        ("<13>Oct 11 22:14:15 10.0.0.99 Use the BFG!", ("10.0.0.99", None, "Use the BFG!", {})),
        ("<13>Oct 11 22:14:15 h app: a: b", ("h", "app", "a: b", {})),
        ("<13>Oct 11 22:14:15 h app:  b", ("h", "app", " b", {})),
        ("<13>Oct 11 22:14:15 h app[12]:b", ("h", "app", "b", {"procid": "12"})),
        ("<13>Oct 11 22:14:15 h app[12] b", ("h", "app", "b", {"procid": "12"})),
        ("<13>Oct 11 22:14:15 h app[]: b", ("h", "app", "b", {})),
        ("<13>Oct 11 22:14:15 h http://example.org is up", ("h", None, "http://example.org is up", {})),
        ("<13>Oct 11 22:14:15 h [12.5] usb 1-1: new", ("h", None, "[12.5] usb 1-1: new", {})),
        ("<13>Oct 11 22:14:15 h sshd(pam_unix)[1]: x", ("h", "sshd(pam_unix)", "x", {"procid": "1"})),
        ("<13>Oct 11 22:14:15 h Google Chrome[7]: x", ("h", "Google Chrome", "x", {"procid": "7"})),
        (
            "<13>Oct 11 22:14:15 h averyveryverylongprogramname[123 x",
            ("h", "averyveryverylongprogramname", "x", {"procid": "123"}),
        ),
        ("<13>Oct 11 22:14:15 fe80::1%eth0 app: x", ("fe80::1%eth0", "app", "x", {})),
        ("<13>Oct 11 22:14:15 app: no host", (PEER, "app", "no host", {})),
        ("<13>Oct 11 22:14:15 app[3]: no host", (PEER, "app", "no host", {"procid": "3"})),
        ("<13>Oct 11 22:14:15 word", (PEER, None, "word", {})),
        ("<13>Oct 11 22:14:15 ", (PEER, None, "", {})),
        ("<13> Oct 11 22:14:15 h app: x", ("h", "app", "x", {})),
        (f"<13>{T} h app[9]: x", ("h", "app", "x", {"procid": "9"})),
        ("<13>2026-11-22T12:00:00.123456789+0100 h app: x", ("h", "app", "x", {})),
        ("Oct 11 22:14:15 h app: no pri", ("h", "app", "no pri", {})),
        # Without a time: Python's SysLogHandler, and text.
        ("<14>app: text\0", (PEER, "app", "text", {})),
        ("<14>app[1]: text", (PEER, "app", "text", {"procid": "1"})),
        ("<11>ERROR: disk full", (PEER, None, "ERROR: disk full", {})),
        ("<11> indented", (PEER, None, " indented", {})),
        ("<34>my raw message", (PEER, None, "my raw message", {})),
        ("<13>", (PEER, None, "", {})),
        # Cisco IOS.
        ("<189>643: *Jan  8 19:46:03.295 UTC: %SYS-5-X: up", (PEER, "%SYS-5-X", "up", {"counter": "643"})),
        ("<189>7: sw1: Jan  8 19:46:03: %SYS-5-X: up", ("sw1", "%SYS-5-X", "up", {"counter": "7"})),
        ("<189>Jan  8 19:46:03: %SYS-5-X: up", (PEER, "%SYS-5-X", "up", {})),
        ("<164>Oct 26 15:19:25 1.2.3.4 %ASA-4-106023: Deny", ("1.2.3.4", "%ASA-4-106023", "Deny", {})),
        # No syslog.
        ("hello: world", (PEER, None, "hello: world", {NOTE: "not syslog"})),
        ("<192>Oct 11 22:14:15 h app: x", (PEER, None, "<192>Oct 11 22:14:15 h app: x", {NOTE: "not syslog"})),
        ("<abc>x", (PEER, None, "<abc>x", {NOTE: "not syslog"})),
        ("a->b", (PEER, None, "a->b", {NOTE: "not syslog"})),
        ("\0", (PEER, None, "", {NOTE: "not syslog"})),
    ],
)
def test_dialects(frame: str, expected: tuple[Any, ...]) -> None:
    assert told(frame) == expected
    if expected[2]:
        assert one(frame).raw is None


def test_severity_and_facility() -> None:
    assert [(one(f"<{n}>x").facility, one(f"<{n}>x").severity) for n in range(192)] == [
        divmod(n, 8) for n in range(192)
    ]
    assert (one("x").facility, one("x").severity) == (1, 5)


@pytest.mark.parametrize(
    ("end", "kept"),
    [("\n", ""), ("\r\n", ""), ("\0", ""), ("\n\n", "\n"), ("\r", "\r"), ("\t", "\t"), ("\x1b[0m", "\x1b[0m")],
)
def test_one_end_of_line_is_stripped(end: str, kept: str) -> None:
    assert one(f"<13>Oct 11 22:14:15 h app: x{end}").message == f"x{kept}"
    assert one(f"<13>1 {T} h app - - - x{end}").message == f"x{kept}"


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"a\0b", "a\ufffdb"),
        (b"a\xffb", "a\ufffdb"),
        (b"a\xed\xa0\x80b", "a\ufffd\ufffd\ufffdb"),
        (b"\xc3\xa9\xff", "\xe9\ufffd"),
    ],
)
def test_what_is_no_text_is_replaced_and_the_bytes_are_kept(sent: bytes, message: str) -> None:
    for head in (b"<13>Oct 11 22:14:15 h app: ", b"<13>1 - h app - - - ", b"<13>", b""):
        record = one(head + sent + b"\n")
        assert record.message == message
        assert record.raw == head + sent + b"\n"
    record = one(b"<13>1 - h app p" + sent + b' - [x k="' + sent + b'"] m')
    assert json.loads(record.attributes or "") == {"procid": "p" + message, "sd": {"x": {"k": message}}}


def test_times_without_a_zone_are_in_the_zone_of_the_listener() -> None:
    frames = [
        b"<13>Nov 22 13:00:00 h app: x",
        b"<13>2026-11-22T13:00:00 h app: x",
        b"<13>2026-11-22T12:00:00Z h app: x",
    ]
    decoded = decode_syslog(frames, ORIGIN, ZoneInfo("Europe/Berlin"))
    assert [record.timestamp for record in decoded.records] == [NOW, NOW, NOW]


def test_a_time_that_was_read_before_reads_the_same() -> None:
    lines = ["<13>Oct 11 22:14:15 h app[1]: x", "<14>Oct 11 22:14:15.5 h app[1]: x", "Oct 11 22:14:15: app: x"]
    together = decode_syslog([line.encode() for line in lines * 2], ORIGIN).records
    assert together == [one(line) for line in lines * 2]


word = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
message = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@settings(deadline=None)
@given(message)
def test_a_message_comes_back_as_it_was_sent(text: str) -> None:
    assert one(f"<13>Oct 11 22:14:15 h app[1]: {text}\0").message == text
    assert one(f"<13>1 {T} h app 1 - -  {text}\0").message == text.removeprefix("\ufeff")


@settings(deadline=None)
@given(st.dictionaries(word.filter(lambda w: not set(w) & set('=]"')), message, min_size=1, max_size=4), message)
def test_structured_data_comes_back_as_it_was_sent(params: dict[str, str], text: str) -> None:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")

    data = " ".join(f'{name}="{escaped(value)}"' for name, value in params.items())
    record = one(f"<13>1 {T} h app - - [x@1 {data}]  {text}\0")
    assert json.loads(record.attributes or "") == {"sd": {"x@1": params}}
    assert record.message == text.removeprefix("\ufeff")


pieces = st.sampled_from(
    [b"<13>", b"1 ", b"- ", b"Oct 11 22:14:15 ", b'[a b="', b'"]', b": ", b"app[", b"]: ", b"\0", b"\xff", b"\n"]
)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80) | st.lists(pieces | st.binary(max_size=4), max_size=12).map(b"".join))
def test_any_bytes_are_one_record(frame: bytes) -> None:
    record = one(frame)
    for text in (record.message, record.host, record.service, record.attributes):
        assert "\0" not in (text or "")
        (text or "").encode()
    json.loads(record.attributes or "{}")
    assert record.raw in (None, frame)
    assert record.timestamp.tzinfo is UTC


@pytest.mark.parametrize(
    "frame",
    [b"<13>" + b"x" * 10_000_000, b"<13>1 - - - - - " + b"[" * 1_000_000, b"<13>Oct 11 22:14:15 " + b"a:" * 1_000_000],
)
def test_a_huge_frame_takes_linear_time(frame: bytes) -> None:
    assert len(one(frame).message) > 999_990
