"""Chunks of syslog decoded to columns give the records that the reference gives, one after the other."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols import syslog, syslog_columns
from logagg.protocols.columns import COLUMNS, Columnar, to_records
from logagg.protocols.record import Decoded, Origin, Record
from logagg.protocols.syslog_columns import FEW

SHARED = Path(__file__).parents[2] / "shared"
NOW = datetime(2026, 11, 22, 12, 0, 0, 7, tzinfo=UTC)
ORIGIN = Origin(NOW, "syslog-udp", "192.0.2.9", "staging")

#: Plain frames, by the form of their heads.
PLAIN = {
    "RFC 5424": "<{0}>1 2026-11-22T06:53:52.84893{1}Z h{1} app{1} - - - m {0} - é",
    "RFC 5424 with all fields": '<{0}>1 2026-11-22T06:53:52.848+01:00 h app {0} ID{1} [x@1 k="{0}" l="a b"][y] m {0}',
    "RFC 5424 with a blank before MSG": "<{0}>1 2026-11-22T06:53:52Z h app - - -  m {0}",
    "RFC 5424 without a zone": "<{0}>1 2026-03-29T02:30:0{1}.5 h app - - - m {0}",
    "RFC 3164": "<{0}>Nov 22 06:53:5{1} h{1} app[{0}]: m {0}: x",
    "RFC 3164 in the first days of a month": "<{0}>Nov  {1} 06:53:52 h{1} app: m {0}",
    "RFC 3164 without PRI": "Nov 22 06:53:5{1} h app[{0}]: m",
    "RFC 3164 with RFC 3339": "<{0}>2026-11-22T06:53:52.84893{1}-05:00 h{1} app[]: m {0}",
    "RFC 3164 with RFC 3339 without PRI": "2026-11-22T06:53:5{1}Z h app: m",
    "RFC 3164 with other forms of RFC 3339": "<{0}>2026-11-22t06:53:52,{1}+0100 h{1} a:b: m {0}",
}


def plain(form: str, count: int = FEW) -> list[bytes]:
    return [PLAIN[form].format(place % 192, place % 9 + 1).encode() for place in range(count)]


def records_of(decoded: Decoded | Columnar) -> list[Record]:
    assert decoded.rejects == []
    return to_records(decoded.records) if isinstance(decoded.records, pl.DataFrame) else decoded.records


def check(frames: Sequence[bytes], zone: tzinfo = UTC, now: datetime = NOW) -> Decoded | Columnar:
    """Compare with the reference."""
    origin = ORIGIN._replace(now=now)
    decoded = syslog_columns.decode_syslog(frames, origin, zone)
    expected = syslog.decode_syslog(frames, origin, zone).records
    for frame, record, other in zip(frames, records_of(decoded), expected, strict=True):
        assert record == other, frame
    return decoded


@pytest.mark.parametrize("zone", [UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")], ids=str)
@pytest.mark.parametrize("form", PLAIN)
def test_plain_frames_become_columns(form: str, zone: tzinfo) -> None:
    decoded = check(plain(form), zone)
    assert isinstance(decoded.records, pl.DataFrame)
    assert dict(decoded.records.schema) == COLUMNS


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\0"])
@pytest.mark.parametrize("form", PLAIN)
def test_ends_of_datagrams_are_stripped(form: str, end: bytes) -> None:
    assert isinstance(check([frame + end for frame in plain(form)]), Columnar)
    check([frame + end * (place % 3) for place, frame in enumerate(plain(form))])


def test_few_frames_stay_records() -> None:
    assert isinstance(check(plain("RFC 5424", FEW - 1)), Decoded)
    assert isinstance(check([]), Decoded)


T = "2026-11-22T06:53:52.848Z"
TIMES_5424 = [
    "-", "2026-11-22", "2026-11-22T06:53:60Z", "2026-11-22T06:53Z", "2026-02-30T06:53:52Z", "0000-11-22T06:53:52Z",
    "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026-11-22T06:53:52.1234567891Z", "20261122T065352Z",
    "2026-11-22T06:53:52", "2026-11-22T06:53:52+0100", "Nov", "1790000000", "2026-11-22T06:53:52.848+24:00",
]  # fmt: skip
TIMES_3164 = [
    "Feb 30 06:53:52", "Nov 22 06:53:60", "Nov 22 06:53:52:", "Nov 22 06:53:52.5", "nov 22 06:53:52",
    "Nov  2 06:53:52", "Nov   2 06:53:52", " Nov 22 06:53:52", "Nov 22 2025 06:53:52", "Feb 29 06:53:52",
    "Dec 31 23:59:59", "*Nov 22 06:53:52", "643: *Nov 22 06:53:52.295:", "Nov 22 06:53:52 UTC:", "Nov 22 24:00:00",
    "2026-11-22T06:53:52Z:", "2026-11-22T06:53:60Z", "2026-11-22", "2026-02-30T06:53:52Z", "0001-01-01T00:00:00+01:00",
    "2026-11-22T06:53:52,5", "20261122T065352Z",
]  # fmt: skip
HOSTS_AND_TAGS = [
    "h app: m", "h app:  m", "h app[1]: m", "h app[1]:m", "h app[1] m", "h app[]: m", "h app:m", "app: m", "app[1]: m",
    "h", "", " h app: m", "h  app: m", "h: app: m", "h http://a.b is up", "h [12.5] usb: new", "h Chrome X[7]: x",
    "h a:b:c: m", "h a:b:c:d:e:f: m", "h app[1]:b[2]: m", "fe80::1%eth0 app: x", "h_ app: m", "h. app: m", "hé app: m",
    "h app\t: m", "h app: two\nlines", "h %ASA-4-106023: Deny", "h averyveryverylongprogramname[123 x", "h app: ",
    "h app:", "h " + "a" * 129 + ": m", "h" * 256 + " app: m", "- -: m", "h app[1]: \ufeffm", "h\tapp: m x",
]  # fmt: skip
TEXTS = [
    "x", "<13>", "<13>text", "<13>app: text", "no syslog", "<192>Nov 22 06:53:52 h app: m", "<013>1 - h a - - - m",
    # RFC 5424: words that are not as usual, and too few.
    f"<13>1 {T} h app - - -", f"<13>1 {T} h app - - - ", f"<13>1 {T} h app - -", f"1 {T} h app 1 - - m",
    f"<13>2 {T} h app - - - m", f"<13>1  {T} h app - - - m", f"<13>1 {T} - - - - - m", f"<13>1 {T}   - - - m n",
    f"<13>1 {T} h app - - -   two blanks", f"<13>1 {T} h app - - - \ufeffBOM", f"<13>1 {T} h app - - -  \ufeffBOM",
    f"<13>1 {T} h app - - no data", f"<13>1 {T} h app - -  - m", f"<13>1 {T} h app - - [x] m",
    f"<13>1 {T} h app - - [x]", f'<13>1 {T} h app - - [x k="a\\"\\]b  c" k="2" ][y] m',
    f'<13>1 {T} h app - - [x k="1"]m n', f"<13>1 {T} h app - - [meta a=1] m", f"<13>1 {T} h app - - - two\nlines",
    f"<13>1 {T} h\t app - - - m", f"<13>1 {T} h app - - - m\0n", f"\ufeff<13>1 {T} h app - - - m",
    f"<13>1 {T} {'h' * 300} {'a' * 300} - - - m", f"<13>1 {T} h app - - [x k=\"1\"]  m",
]  # fmt: skip
ODD = [
    *(f"<13>1 {time} h app - - - m" for time in TIMES_5424),
    *(f"<13>{time} h app: m" for time in TIMES_3164),
    *(f"<13>Nov 22 06:53:52 {rest}" for rest in HOSTS_AND_TAGS),
    *TEXTS,
]
BROKEN = [b"<13>Nov 22 06:53:52 h app: \xff", b"<13>1 2026-11-22T06:53:52Z h\xc3 app - - - m", b"\xef\xbb", b"a\0\0"]


@pytest.mark.parametrize("odd", [frame.encode() for frame in ODD] + BROKEN, ids=lambda frame: repr(frame[:50]))
def test_one_odd_frame_changes_nothing_for_the_others(odd: bytes) -> None:
    for form in ("RFC 5424", "RFC 3164", "RFC 3164 with RFC 3339", "RFC 3164 in the first days of a month"):
        frames = plain(form)
        frames[7:7] = [odd, odd]
        assert isinstance(check([odd, *frames, odd]), Columnar)
    check([odd] * FEW)


def test_all_odd_frames_together() -> None:
    odd = [frame.encode() for frame in ODD] + BROKEN
    for form in PLAIN:
        check(plain(form, 2 * len(odd)) + odd, ZoneInfo("Europe/Berlin"))
    check(odd, ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize("now", [datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC), datetime(2027, 12, 31, 23, tzinfo=UTC)])
def test_times_around_new_year(now: datetime) -> None:
    for date in ("Dec 31", "Jan  1", "Jun 30", "Jul  2", "Feb 29"):
        check([f"<13>{date} 23:59:5{place % 9} h app: m".encode() for place in range(FEW)], now=now)


def test_forms_by_turns() -> None:
    every = [frame for form in PLAIN for frame in plain(form)]
    check(every)
    check(every[::-7] + every[::3])


def in_chunks(frames: Sequence[bytes], size: int = 400) -> None:
    for start in range(0, len(frames), size):
        check(frames[start : start + size])


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no folder {SHARED}")
def test_frames_of_other_peoples_tests_between_plain_ones() -> None:
    cases = [case for file in sorted((SHARED / "vectors").glob("*.json")) for case in json.loads(file.read_text())]
    hexes = [case["input_hex"] for case in cases if isinstance(case, dict) and case.get("input_hex")]
    texts = [case["input"] for case in cases if isinstance(case, dict) and isinstance(case.get("input"), str)]
    odd = list(filter(None, map(bytes.fromhex, hexes))) + [text.encode() for text in texts if text]
    assert len(odd) > 500
    for form in ("RFC 5424", "RFC 3164", "RFC 3164 with RFC 3339"):
        others = plain(form, len(odd))
        in_chunks([frame for three in zip(others, odd, others, strict=True) for frame in three])
    in_chunks(odd)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no folder {SHARED}")
def test_real_lines() -> None:
    files = sorted(file for file in (SHARED / "corpus").rglob("*") if file.is_file() and file.suffix != ".gz")
    lines = [line for file in files for line in file.read_bytes()[:200_000].split(b"\n") if line]
    assert len(lines) > 5_000
    in_chunks(lines)
    bodies = [line[:300] for line in lines[::5]]
    in_chunks([b"<%d>1 2026-11-22T06:53:52.848Z h app 1 - - %b" % (i % 192, body) for i, body in enumerate(bodies)])
    in_chunks([b"<%d>Nov 22 06:53:5%d h app[1]: %b" % (i % 192, i % 9, body) for i, body in enumerate(bodies)])


WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=6) | st.sampled_from(
    [
        "-",
        "[x]",
        '[x k="v"]',
        "app[1]:",
        "app:",
        "h",
        "<13>1",
        "<13>Nov",
        "22",
        "06:53:52",
        T,
        "é",
        "a\nb",
        "\ufeff",
        "\0",
    ]
)
LINE = st.lists(WORD, max_size=9).map(" ".join)
HEAD = st.sampled_from(
    ["<13>1 ", f"<191>1 {T} ", f"<0>1 {T} h ", f"<13>1 {T} h a 1 ", f"<13>1 {T} h a - - ", "<13>",
     "<13>Nov 22 06:53:52 ", "<13>Nov 22 06:53:52 h ", "<13>Nov  2 06:53:52 h app[1]: ", f"<13>{T} ", f"<13>{T} h ", ""]
)  # fmt: skip
FRAME = (
    st.builds(lambda head, line: (head + line).encode(), HEAD, LINE)
    | st.builds("<13>1 {} {}".format, st.datetimes(timezones=st.timezones()).map(datetime.isoformat), LINE).map(
        str.encode
    )
    | st.builds("<13>{:%b %e %T} {}".format, st.datetimes(), LINE).map(str.encode)
    | st.binary(max_size=20)
).filter(bool)


@settings(max_examples=200, deadline=None)
@given(frames=st.lists(FRAME, min_size=1, max_size=6), form=st.sampled_from(list(PLAIN)), alone=st.booleans())
def test_random_frames_are_the_same_either_way(frames: list[bytes], form: str, alone: bool) -> None:
    check(frames * FEW if alone else [*frames, *plain(form), *frames], ZoneInfo("Europe/Berlin"))
