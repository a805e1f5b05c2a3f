"""What is printed, compared as text, and that nothing printed acts on a terminal."""

import csv
import io
import json
import re
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.cli.charts import bars
from logagg.cli.output import RECORD_FIELDS, Csv, Form, JsonArray, JsonLines, Raw, Row, Text, compact, local_time, table
from logagg.cli.terminal import harmless_json, visible

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x00\x7f\u202egnp.exe\u2066\u2028"
#: What may act on a terminal, or hide a part of a line; none of it may be printed to one.
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def record(**changes: Any) -> dict[str, Any]:
    return {
        "id": 131073, "timestamp": "2026-11-20T10:00:00.123456Z", "received_at": "2026-11-20T10:00:01Z",
        "level": "INFO", "service": "web", "host": None, "environment": None, "source": "127.0.0.1", "facility": None,
        "message": "hello", "attributes": None, "trace_id": None, "span_id": None,
    } | changes  # fmt: skip


RECORDS = [
    record(message="started"),
    record(
        id=131074, timestamp="2026-11-20T10:00:02Z", level="WARNING", service="billing", host="db1",
        message="slow query",
        attributes={"ms": 1520, "sql": "select 1", "http": {"path": "/a b", "ok": True}, "none": None},
    ),
    record(
        id=131075, timestamp="2026-11-20T10:00:03.5Z", level="EMERGENCY", service=None, host="db1", trace_id="4bf9",
        environment="production", message="Traceback:\r\n  File x\n\tdone\n",
        attributes={"user": "o'neil", "list": [1, "a"]},
    ),
]  # fmt: skip


def printed(form: Form, *pages: list[dict[str, Any]]) -> str:
    return form.head + "".join(form.page(page) for page in pages) + form.tail()


def test_text_is_aligned_and_plain() -> None:
    assert printed(Text(colour=False, zone=UTC), RECORDS) == (
        "2026-11-20 10:00:00.123Z INFO      -   web     started\n"
        "2026-11-20 10:00:02.000Z WARNING   db1 billing slow query"
        ' ms=1520 sql="select 1" http.path="/a b" http.ok=true none=null\n'
        "2026-11-20 10:00:03.500Z EMERGENCY db1 -       Traceback:"
        ' environment=production trace_id=4bf9 user="o\'neil" list=[1,"a"]\n'
        "      File x\n"
        "    \tdone\n"
    )


def test_a_column_stands_only_where_a_record_has_it_and_never_shrinks() -> None:
    form = Text(colour=False, zone=UTC)
    text = printed(form, [record(service=None)], [record(service="long-name")], [record(service="x")])
    assert [line[25:] for line in text.splitlines()] == [
        "INFO    hello",
        "INFO    long-name hello",
        "INFO    x         hello",
    ]


def test_a_very_long_name_does_not_move_the_others() -> None:
    text = printed(Text(colour=False, zone=UTC), [record(service="s" * 200), record()])
    assert [len(line) - len("hello") for line in text.splitlines()] == [33 + 200 + 1, 33 + 32 + 1]


def test_text_in_colour() -> None:
    assert printed(Text(colour=True, zone=UTC), [record(level="ERROR", attributes={"a": 1})]) == (
        "\x1b[2m2026-11-20 10:00:00.123Z\x1b[0m \x1b[1;31mERROR\x1b[0m   \x1b[36mweb\x1b[0m hello \x1b[2ma=1\x1b[0m\n"
    )


def test_times_are_shown_in_the_zone() -> None:
    assert local_time("2026-11-20T10:00:00.123456Z", ZoneInfo("Asia/Kathmandu")) == "2026-11-20 15:45:00.123+05:45"
    assert local_time("9999-12-31T23:59:59Z", ZoneInfo("Asia/Tokyo")) == "9999-12-31T23:59:59Z"
    assert local_time("\x1b[2J", UTC) == r"\x1b[2J"
    assert re.fullmatch(r"2026-11-(19|20|21) \d\d:\d\d:00\.123", local_time("2026-11-20T10:00:00.1239Z", None))


def test_json_lines_are_the_records() -> None:
    big = record(message=EVIL, attributes={"n": 123456789012345678901234567890, "f": 0.1, "é": "日本"})
    text = printed(JsonLines(), [*RECORDS, big])
    assert [json.loads(line) for line in text.splitlines()] == [*RECORDS, big]
    assert text.splitlines()[0].startswith('{"id":131073,"timestamp":"2026-11-20T10:00:00.123456Z",')
    assert "é" in text
    assert not ACTS.search(text)


@pytest.mark.parametrize("pages", [[], [[]], [RECORDS], [RECORDS[:1], [], RECORDS[1:]]])
def test_a_json_array_is_one_however_it_comes(pages: list[list[dict[str, Any]]]) -> None:
    text = printed(JsonArray(), *pages)
    assert json.loads(text) == [each for page in pages for each in page]
    assert text.endswith("]\n")


def test_csv() -> None:
    text = printed(Csv(RECORD_FIELDS, terminal=False), [record(message='a,"b"\nc', attributes={"k": [1]}, facility=3)])
    assert text == (
        "id,timestamp,received_at,level,service,host,environment,source,facility,message,attributes,trace_id,span_id\n"
        '131073,2026-11-20T10:00:00.123456Z,2026-11-20T10:00:01Z,INFO,web,,,127.0.0.1,3,"a,""b""\nc","{""k"":[1]}",,\n'
    )
    evil = printed(Csv(["message"], terminal=False), [record(message=EVIL)])
    assert list(csv.reader(io.StringIO(evil, newline="")))[1] == [EVIL]
    assert not ACTS.search(printed(Csv(["message"], terminal=True), [record(message=EVIL)]))


def test_raw_is_the_message_as_it_is_but_harmless_on_a_terminal() -> None:
    assert printed(Raw(terminal=False), [record(message=EVIL), record(message="a\nb")]) == f"{EVIL}\na\nb\n"
    assert printed(Raw(terminal=True), [record(message=EVIL)]) == (
        r"\x1b]0;owned\x07\x1b[2J\x9b31m\r\x00\x7f\u202egnp.exe\u2066\u2028" + "\n"
    )


def test_a_record_cannot_forge_another_line() -> None:
    forged = "ok\n2026-11-20 10:00:00.123Z INFO    web all is well"
    text = printed(Text(colour=False, zone=UTC), [record(message=forged, host="a\nb", attributes={"k\n": "v\nw"})])
    assert text.splitlines() == [
        r'2026-11-20 10:00:00.123Z INFO    a\nb web ok k\n="v\nw"',
        "    2026-11-20 10:00:00.123Z INFO    web all is well",
    ]


anything = st.text(st.characters(codec=None), max_size=30) | st.sampled_from([EVIL, "\x1b[31m", "a\nb"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | anything, lambda v: st.dictionaries(anything, v), max_leaves=4
)
records = st.fixed_dictionaries(
    dict.fromkeys(("timestamp", "level", "service", "host", "environment", "trace_id", "message"), anything)
    | {"attributes": st.dictionaries(anything, values, max_size=3)}
)


@settings(max_examples=60, deadline=None)
@given(records)
def test_nothing_in_a_record_acts_on_a_terminal(row: dict[str, Any]) -> None:
    forms: list[Form] = [
        Text(colour=False, zone=UTC),
        JsonLines(),
        JsonArray(),
        Csv(RECORD_FIELDS, terminal=True),
        Raw(terminal=True),
    ]
    for form in forms:
        text = printed(form, [row])
        assert not ACTS.search(text)
        text.encode()
    assert not ACTS.search(table(["message", "level"], [row], colour=False))
    # Colours add escapes; without them, the text is the plain one.
    coloured = re.sub(r"\x1b\[[0-9;]+m", "", printed(Text(colour=True, zone=UTC), [row]))
    assert coloured == printed(Text(colour=False, zone=UTC), [row])


def test_what_is_made_visible_and_what_is_left() -> None:
    assert visible("a\tb\nc") == r"a\tb\nc"
    assert visible("a\tb\nc", block=True) == "a\tb\nc"
    assert visible("é 日本 \u200f\u200d 🙂") == "é 日本 \u200f\u200d 🙂"
    assert visible("\ud800") == r"\ud800"
    assert json.loads(harmless_json(json.dumps(EVIL, ensure_ascii=False))) == EVIL
    assert compact({"a": [1, "b"]}) == '{"a":[1,"b"]}'


def test_deep_attributes_end_in_json() -> None:
    deep: dict[str, Any] = {"leaf": 1}
    for _ in range(20):
        deep = {"d": deep}
    text = printed(Text(colour=False, zone=UTC), [record(attributes=deep)])
    assert 'd.d.d.d.d.d.d.d={"d":' in text


def test_a_table() -> None:
    rows: list[Row] = [
        {"service": "billing", "level": "ERROR", "count": 1204},
        {"service": None, "level": "INFO", "count": 7},
    ]
    assert table(["service", "level", "count"], rows, colour=False) == (
        "SERVICE  LEVEL  COUNT\nbilling  ERROR   1204\n-        INFO       7\n"
    )
    assert table(["service", "count"], [], colour=False) == "SERVICE  COUNT\n"


BINS = [
    {"start": "2026-11-20T10:00:00Z", "total": 1000, "levels": {"INFO": 999, "ERROR": 1}},
    {"start": "2026-11-20T10:05:00Z", "total": 0, "levels": {}},
    {"start": "2026-11-20T10:10:00Z", "total": 500, "levels": {"WARNING": 250, "DEBUG": 250}},
]


def test_bars_by_level_the_worst_first_and_nothing_unseen() -> None:
    assert bars(BINS, 300, width=46, zone=UTC, colour=False) == (
        "2026-11-20 10:00 1000 █▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒\n"
        "2026-11-20 10:05    0\n"
        "2026-11-20 10:10  500 ▓▓▓▓▓░░░░░\n"
        "1500 records, 5m a bar  █ error and worse 1  ▓ warning 250  ▒ notice, info 999  ░ debug 250\n"
    )


def test_empty_bins_in_a_row_are_one_line() -> None:
    empty = [{"start": "2026-11-20T09:55:00Z", "total": 0, "levels": {}}] * 3
    assert bars([*empty, BINS[2], *empty[1:], BINS[2], *empty * 4], 300, width=46, zone=UTC, colour=False) == (
        "...  3 empty bins\n"
        "2026-11-20 10:10 500 ▓▓▓▓▓▓▓▓▓▓░░░░░░░░░░░\n"
        "2026-11-20 09:55   0\n"
        "2026-11-20 09:55   0\n"
        "2026-11-20 10:10 500 ▓▓▓▓▓▓▓▓▓▓░░░░░░░░░░░\n"
        "...  12 empty bins\n"
        "1000 records, 5m a bar  ▓ warning 500  ░ debug 500\n"
    )


def test_bars_in_colour_and_of_nothing() -> None:
    text = bars(BINS[2:], 1, width=20, zone=UTC, colour=True)
    assert text.startswith("2026-11-20 10:10:00 500 \x1b[33m█████\x1b[0m\x1b[2m█████\x1b[0m\n")
    assert bars([], 60, width=80, zone=UTC, colour=False) == "0 records, 1m a bar\n"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["ERROR", "WARNING", "INFO", "DEBUG"]), st.integers(1, 10**9), min_size=1)
    ),
    st.integers(60, 200),
)
def test_bars_fit_the_width(levels: list[dict[str, int]], width: int) -> None:
    bins = [{"start": "2026-11-20T10:00:00Z", "total": sum(each.values()), "levels": each} for each in levels]
    lines = bars(bins, 60, width=width, zone=UTC, colour=False).splitlines()[:-1]
    assert all(len(line) <= width for line in lines)
    assert [len(set(re.findall("[█▓▒░]", line))) for line in lines] == [len(each) for each in levels]
