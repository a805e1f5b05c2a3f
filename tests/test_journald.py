import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols import journald
from logagg.protocols.columns import Columnar
from logagg.protocols.journald import Batch, JournalDecoder, key_of
from logagg.protocols.record import Origin, Record, Reject

if TYPE_CHECKING:
    from logagg.tests.decoded import in_records
else:
    from decoded import in_records

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORIGIN = Origin(NOW, "journald", "192.0.2.9", "staging")
MAX = 10_000
BOOT, MACHINE = "2e1f0c7a9d4b4b6f8f3b6f1d5a7c9e01", "a1b2c3d4e5f60718293a4b5c6d7e8f90"


def text(**fields: object) -> bytes:
    return b"".join(f"{name}={value}\n".encode() for name, value in fields.items()) + b"\n"


def binary(name: str, value: bytes) -> bytes:
    return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def cursor(number: int) -> str:
    return f"s={MACHINE};i={number:x};b={BOOT};m={number * 7:x};t={1700000000000000 + number:x};x={number * 7919:x}"


def entry(number: int, message: str = "", **more: object) -> bytes:
    return text(
        __CURSOR=cursor(number),
        __REALTIME_TIMESTAMP=1700000000000000 + number,
        __MONOTONIC_TIMESTAMP=number * 7,
        _BOOT_ID=BOOT,
        _MACHINE_ID=MACHINE,
        _HOSTNAME="web-1",
        PRIORITY=3,
        SYSLOG_FACILITY=10,
        SYSLOG_IDENTIFIER="sshd",
        _PID=number,
        MESSAGE=message or f"message {number}",
        **more,
    )


def many(count: int) -> bytes:
    return b"".join(b"K%d=v\n" % number for number in range(count))


def feed(data: bytes, step: int = 0, limit: int = MAX) -> list[Batch]:
    decoder = JournalDecoder(limit)
    pieces = [data[at : at + step] for at in range(0, len(data), step)] if step else [data]
    return [batch for piece in pieces for batch in decoder.feed(piece, ORIGIN)] + decoder.close(ORIGIN)


def records(batches: list[Batch]) -> list[Record]:
    return [record for batch in batches for record in in_records(batch.decoded).records]


def rejects(batches: list[Batch]) -> list[Reject]:
    return [reject for batch in batches for reject in batch.decoded.rejects]


def messages(batches: list[Batch]) -> list[str]:
    return [record.message for record in records(batches)]


def rest(record: Record) -> Any:
    return json.loads(record.attributes or "{}")


def stream(start: int, stop: int) -> bytes:
    return b"".join(map(entry, range(start, stop)))


def store(batches: list[Batch], keys: set[str], rows: list[str]) -> None:
    """Store as `Batch` asks for."""
    for batch in batches:
        rest = batch.rest(keys & batch.forms.keys())
        if len(rest.decoded.records):
            assert rest.key
            assert rest.key not in keys
            keys.add(rest.key)
            rows += messages([rest])


def answer(batches: list[Batch], keys: set[str]) -> None:
    if batches:
        keys.add(key_of(batches[-1].final))


# Entries.


def test_an_entry_of_sshd() -> None:
    (record,) = records(feed(entry(5, _SYSTEMD_UNIT="ssh.service")))
    assert record.timestamp == datetime(2023, 11, 14, 22, 13, 20, 5, tzinfo=UTC)
    assert (record.received_at, record.severity, record.facility, record.raw) == (NOW, 3, 10, None)
    assert (record.host, record.service, record.source, record.environment) == (
        "web-1",
        "sshd",
        "192.0.2.9",
        "staging",
    )
    assert record.message == "message 5"
    assert rest(record) == {
        "__CURSOR": cursor(5),
        "_BOOT_ID": BOOT,
        "_MACHINE_ID": MACHINE,
        "_PID": "5",
        "_SYSTEMD_UNIT": "ssh.service",
    }


def test_the_time_of_the_sender_wins() -> None:
    (record,) = records(feed(entry(5, _SOURCE_REALTIME_TIMESTAMP=1600000000000001)))
    assert record.timestamp == datetime(2020, 9, 13, 12, 26, 40, 1, tzinfo=UTC)
    assert "__REALTIME_TIMESTAMP" not in rest(record)


def test_a_message_of_many_lines_comes_in_binary_form() -> None:
    stack = "Traceback:\n\n  File a.py\nMESSAGE=no\n"
    data = entry(1) + binary("MESSAGE", stack.encode()) + text(PRIORITY=6) + entry(2)
    assert messages(feed(data)) == ["message 1", stack, "message 2"]


def test_a_name_that_comes_again_is_a_list() -> None:
    (record,) = records(feed(b"OBJECT_PID=1\nMESSAGE=m\nOBJECT_PID=2\n" + binary("OBJECT_PID", b"3") + b"\n"))
    assert (record.message, rest(record)) == ("m", {"OBJECT_PID": ["1", "2", "3"]})


def test_bytes_that_are_no_text_are_replaced_and_kept() -> None:
    bad = binary("MESSAGE", b"a\0\xff") + b"K=v\n\n"
    odd = b"MESSAGE=b\0\nK=v\n\n"
    (first, second) = records(feed(bad + odd))
    assert (first.message, first.raw, rest(first)) == ("a\ufffd\ufffd", bad, {"K": "v"})
    assert (second.message, second.raw) == ("b\ufffd", odd)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_last_entry_may_lack_its_blank_line(end: bytes) -> None:
    assert messages(feed(entry(1) + b"MESSAGE=last" + end)) == ["message 1", "last"]


def test_blank_lines_too_many_are_nothing() -> None:
    assert messages(feed(b"\n\n" + entry(1) + b"\n\n\n" + entry(2) + b"\n")) == ["message 1", "message 2"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"no field\n\n", "journal entry with a line of 8 bytes that is no field"),
        (b"A=1\n" + b"x" * 300 + b"\nB=2\n\n", "journal entry with a line of 300 bytes that is no field"),
        (b"MESSAGE\n" + b"\xff" * 8 + b"x\n\n", f"journal field of {2**64 - 1} bytes, at most {768 << 20}"),
        (b"M\n" + (1 << 63).to_bytes(8, "little") + b"\n\n", f"journal field of {1 << 63} bytes, at most {768 << 20}"),
        (b"M\n\x03" + b"\0" * 7 + b"abcd\n\n", "journal field of 3 bytes without a line feed behind it"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [0, 1, 5])
def test_an_entry_that_cannot_be_read_is_a_reject_and_costs_no_neighbour(bad: bytes, reason: str, step: int) -> None:
    batches = feed(entry(1) + bad + entry(2), step)
    assert messages(batches) == ["message 1", "message 2"]
    assert [(reject.raw, reject.reason, reject.transport) for reject in rejects(batches)] == [(bad, reason, "journald")]


@pytest.mark.parametrize("part", [b"MESSAGE\n", b"MESSAGE\n\x05\0", binary("MESSAGE", b"hello")[:-3]])
def test_a_field_cut_short_by_the_end_is_a_reject(part: bytes) -> None:
    (reject,) = rejects(feed(entry(1) + b"K=v\n" + part))
    assert (reject.raw, reject.reason) == (b"K=v\n" + part, f"journal entry cut short after {4 + len(part)} bytes")


@pytest.mark.parametrize("step", [0, 1000])
@pytest.mark.parametrize("large", [b"COREDUMP=" + b"x" * 50_000 + b"\n", binary("COREDUMP", b"x" * 50_000)])
def test_a_large_field_is_cut_and_leaves_room_for_the_others(large: bytes, step: int) -> None:
    batches = feed(entry(1) + large + text(MESSAGE="crash") + entry(2), step)
    assert messages(batches) == ["message 1", "crash", "message 2"]
    kept = len(rest(records(batches)[1])["COREDUMP"])
    assert 9_000 < kept <= MAX
    assert rest(records(batches)[1])["logagg_note"] == f"COREDUMP cut: 50000 bytes, kept {kept}"


def test_what_never_ends_is_held_within_bounds() -> None:
    decoder = JournalDecoder(MAX)
    for piece in (b"K=v\n" * 1000, b"x" * 4000, b"=" * 4000, b"MESSAGE\n" + (1 << 29).to_bytes(8, "little")):
        for _ in range(50):
            assert decoder.feed(piece, ORIGIN) == []
    reader = decoder._reader
    held = len(reader._raw) + len(reader._part) + sum(len(name) + len(value) for name, value in reader._fields)
    assert held <= 3 * MAX
    (batch,) = decoder.close(ORIGIN)
    assert len(batch.decoded.records) + len(batch.decoded.rejects) == 1


def test_fields_beyond_all_room_are_counted() -> None:
    (record,) = records(feed(b"MESSAGE=m\n" + many(5000) + b"\n"))
    kept = len(rest(record)) - 1
    assert rest(record)["logagg_note"] == f"{5000 - kept} fields left out: more than 20000 bytes"


pieces = st.one_of(
    st.integers(1, 9).map(entry),
    st.integers(1, 60).map(many),
    st.binary(max_size=30),
    st.builds(binary, st.sampled_from(["MESSAGE", "K", ""]), st.binary(max_size=30)).map(b"%b\n".__mod__),
    st.sampled_from([b"\n", b"=", b"MESSAGE\n", b"\n\n", b"K=v\n", b"\0" * 8, b"\x02" + b"\0" * 7]),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(pieces, max_size=8).map(b"".join), st.lists(st.integers(0, 400), max_size=6))
def test_any_cutting_of_any_stream_gives_the_same(data: bytes, cuts: list[int]) -> None:
    decoder = JournalDecoder(200)
    whole = decoder.feed(data, ORIGIN) + decoder.close(ORIGIN)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    decoder = JournalDecoder(200)
    cut = [batch for at, end in pairwise(edges) for batch in decoder.feed(data[at:end], ORIGIN)]
    assert cut + decoder.close(ORIGIN) == whole
    for record in records(whole):
        assert "\0" not in record.message + (record.attributes or "")


def taken(data: bytes, few: int) -> tuple[list[Record], list[Reject], set[type]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journald, "FEW", few)
        batches = feed(data)
    return records(batches), rejects(batches), {type(batch.decoded) for batch in batches}


MORE = [{}, {"UNIT": "a"}, {"_SOURCE_REALTIME_TIMESTAMP": 1700000000000001}, {"LEVEL": "high"}, {"TIME": ""}]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from(MORE)), min_size=2, max_size=30))
def test_many_entries_give_the_same_by_columns_as_one_by_one(some: list[tuple[int, dict[str, Any]]]) -> None:
    data = b"".join(entry(number, **more) for number, more in some)
    assert taken(data, 2)[:2] == taken(data, 1000)[:2]


def test_plain_entries_become_columns_and_one_with_a_note_is_no_harm() -> None:
    plain, odd = stream(0, 200), entry(201) + binary("MESSAGE", b"\xff") + b"\n"
    assert Columnar in taken(plain, 64)[2]
    assert taken(plain + odd, 64)[:2] == taken(plain + odd, 1000)[:2]


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_cost_no_entry_before_them(data: bytes) -> None:
    assert messages(feed(entry(1) + data))[0] == "message 1"


# The real programs.

TOOLS = f"{os.environ['PATH']}:/lib/systemd:/usr/lib/systemd"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal of 300 entries, every tenth of two lines."""
    remote = shutil.which("systemd-journal-remote", path=TOOLS)
    if remote is None:
        pytest.skip("no systemd-journal-remote (Debian: systemd-journal-remote)")
    entries = []
    for number in range(300):
        message = b"message %d" % number
        field = binary("MESSAGE", message + b"\nsecond") if number % 10 == 0 else b"MESSAGE=" + message + b"\n"
        head = entry(number).partition(b"MESSAGE=")[0]
        entries.append(head + field + b"\n")
    path = tmp_path / "test.journal"
    subprocess.run([remote, "-o", path, "-"], input=b"".join(entries), check=True, capture_output=True)
    return path


def expected(number: int) -> str:
    return f"message {number}" + ("\nsecond" if number % 10 == 0 else "")


def test_what_journalctl_exports(journal: Path) -> None:
    if shutil.which("journalctl") is None:
        pytest.skip("no journalctl")
    command = ["journalctl", "-o", "export", f"--file={journal}"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    batches = feed(data, 4096)
    assert messages(batches) == [expected(number) for number in range(300)]
    assert rejects(batches) == []
    assert {record.service for record in records(batches)} == {"sshd"}
    assert all(batch.key for batch in batches)


def test_what_systemd_journal_upload_sends(journal: Path, tmp_path: Path) -> None:
    upload = shutil.which("systemd-journal-upload", path=TOOLS)
    if upload is None:
        pytest.skip("no systemd-journal-upload (Debian: systemd-journal-remote)")
    bodies: list[list[Batch]] = []

    class Server(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # or curl waits a second for "100 Continue"

        def do_POST(self) -> None:
            assert (self.path, self.headers["Content-Type"]) == ("/upload", "application/vnd.fdo.journal")
            decoder, batches = JournalDecoder(1 << 18), []
            while size := int(self.rfile.readline(), 16):
                batches += decoder.feed(self.rfile.read(size), ORIGIN)
                self.rfile.readline()
            bodies.append(batches + decoder.close(ORIGIN))
            self.send_response(503 if len(bodies) == 1 else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url, state = f"--url=http://127.0.0.1:{server.server_port}", f"--save-state={tmp_path / 'state'}"
        command = [upload, url, state, f"--file={journal}", "--follow=no"]
        runs = [subprocess.run(command, check=False, capture_output=True, timeout=30) for _ in range(3)]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert [run.returncode for run in runs] == [1, 0, 0], runs
    bodies += [[]] * (3 - len(bodies))
    first, again, last = bodies
    assert messages(first) == messages(again) == [expected(number) for number in range(300)]
    assert [batch.key for batch in first] == [batch.key for batch in again]
    keys: set[str] = set()
    rows: list[str] = []
    for body in (first, again):  # the third is the last entry again, in version 252
        store(body, keys, rows)
    answer(again, keys)
    store(last, keys, rows)
    assert len(messages(last)) < 2
    assert rows == messages(first)
