import asyncio
import json
import shutil
import tracemalloc
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logagg.protocols.columns import Columnar
from logagg.protocols.record import Decoded, Origin, Record, Reject
from logagg.protocols.relp import RelpSession
from logagg.protocols.session import Turn
from logagg.protocols.syslog_columns import decode_syslog

if TYPE_CHECKING:
    from logagg.tests.turns import Heard, heard, records_of
else:
    from turns import Heard, heard, records_of

VECTORS = Path(__file__).parents[2] / "shared" / "vectors"
ORIGIN = Origin(datetime(2026, 11, 22, 12, tzinfo=UTC), "relp", "192.0.2.99")
OPEN = b"1 open 32 relp_version=0\ncommands=syslog,x\n"
OPENED = b"1 rsp 58 200 OK\nrelp_version=0\nrelp_software=logagg\ncommands=syslog\n"
CLOSED = b"0 serverclose 0\n"
MAX = 100


def hear(pieces: list[bytes], max_frame: int = MAX, *, close: bool = True) -> Heard:
    session = RelpSession(max_frame, decode_syslog)
    turns = [turn for piece in pieces for turn in session.feed(piece, ORIGIN)]
    return heard(turns + (session.close(ORIGIN) if close else []))


def syslog(number: int, text: bytes) -> bytes:
    return b"%d syslog %d %b\n" % (number, len(text), text)


def taken(*numbers: int) -> bytes:
    return b"".join(b"%d rsp 6 200 OK\n" % number for number in numbers)


def test_the_messages_of_one_read_are_one_turn_with_a_response_for_each() -> None:
    calls = []

    def decode(frames: list[bytes], origin: Origin) -> Decoded | Columnar:
        calls.append(frames)
        return decode_syslog(frames, origin)

    session = RelpSession(MAX, decode)
    assert session.greeting() == b""
    (opened,) = session.feed(OPEN, ORIGIN)
    assert (opened.answer, len(opened.decoded.records), opened.last) == (OPENED, 0, False)
    window = [b"<13>1 - h a - - - text %d" % number for number in range(200)]
    data = b"".join(syslog(number + 2, text) for number, text in enumerate(window))
    (turn,) = session.feed(data, ORIGIN)
    assert calls == [window]
    assert turn.answer == taken(*range(2, 202))
    assert [record.message for record in records_of([turn])] == [f"text {number}" for number in range(200)]
    assert (turn.size, turn.last, turn.key) == (len(data), False, None)


def test_bytes_of_reads_that_complete_nothing_are_counted_with_the_next_turn() -> None:
    data = OPEN + syslog(2, b"<13>a")
    got = hear([data[:5], data[5:30], data[30:]])
    assert [turn.size for turn in got.turns] == [len(data)]


def test_close_is_answered_and_ends_the_session() -> None:
    session = RelpSession(MAX, decode_syslog)
    got = heard(session.feed(OPEN + syslog(2, b"<13>a") + b"3 close 0\n4 syslog 1 x\n", ORIGIN))
    assert got.answer == OPENED + taken(2) + b"3 rsp 0\n" + CLOSED
    assert [turn.last for turn in got.turns] == [True]
    assert (got.messages, got.rejects) == (["a"], [])
    assert session.feed(b"5 syslog 1 x\n", ORIGIN) == session.close(ORIGIN) == []


@pytest.mark.parametrize("data", [b"1 syslog 0\n", b"1 syslog 0 \n", b"1 syslog 000 \n"])
def test_an_empty_message_gets_its_response_and_is_no_record(data: bytes) -> None:
    assert hear([data])[1:] == ([], [], taken(1))


def test_a_message_before_open_is_taken() -> None:
    got = hear([syslog(1, b"<13>a") + syslog(2, b"<13>b")])
    assert (got.messages, got.answer) == (["a", "b"], taken(1, 2))


def test_numbers_begin_again_after_the_last() -> None:
    session = RelpSession(MAX, decode_syslog)
    session._next = 999_999_998
    numbers = [999_999_998, 999_999_999, 1, 2]
    got = heard(session.feed(b"".join(syslog(number, b"<13>a") for number in numbers), ORIGIN))
    assert (got.answer, got.rejects) == (taken(*numbers), [])


def test_numbers_begin_again_after_a_last_message_in_pieces() -> None:
    session = RelpSession(MAX, decode_syslog)
    session._next = 999_999_999
    data = syslog(999_999_999, b"<13>a") + syslog(1, b"<13>b")
    got = heard([turn for place in range(len(data)) for turn in session.feed(data[place : place + 1], ORIGIN)])
    assert (got.answer, got.messages) == (taken(999_999_999, 1), ["a", "b"])


def test_a_second_open_changes_nothing() -> None:
    got = hear([OPEN + b"2" + OPEN[1:] + syslog(3, b"<13>a")])
    assert got.answer == OPENED + b"2 rsp 37 200 connection already open - ignored\n" + taken(3)


@pytest.mark.parametrize("length", [101, 5000])
@pytest.mark.parametrize("step", [1, 13, 10_000])
def test_a_message_that_is_too_long_is_cut_noted_and_gets_its_response(length: int, step: int) -> None:
    data = syslog(1, b"<13>a") + syslog(2, b"<13>" + b"x" * (length - 4)) + syslog(3, b"<13>b")
    got = hear([data[start : start + step] for start in range(0, len(data), step)])
    assert got.messages == ["a", "x" * 96, "b"]
    assert got.records[1].attributes is not None
    assert f"cut: frame of {length} bytes, at most 100" in got.records[1].attributes
    assert (got.answer, got.rejects) == (taken(1, 2, 3), [])
    assert sum(turn.size for turn in got.turns) == len(data)


def test_a_message_of_just_the_limit_is_whole() -> None:
    got = hear([syslog(1, b"<13>" + b"x" * 96)])
    assert (got.messages, got.records[0].attributes) == (["x" * 96], None)


def test_what_cannot_be_decoded_is_rejected_and_gets_its_response() -> None:
    def decode(frames: list[bytes], origin: Origin) -> Decoded:
        return Decoded([], [Reject(origin.now, "relp", "p", "never a record", frame) for frame in frames])

    (turn,) = RelpSession(MAX, decode).feed(syslog(1, b"a") + syslog(2, b"b"), ORIGIN)
    assert (turn.answer, [reject.raw for reject in turn.decoded.rejects]) == (taken(1, 2), [b"a", b"b"])


NOT_RELP = "not RELP: no number of 9 digits at most, command, and length of 8 digits at most"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", NOT_RELP),
        (bytes.fromhex("160301020001000001fc0303"), NOT_RELP),
        (b"<13>Oct 11 22:14:15 h a: b\n", NOT_RELP),
        (b"9" * 900, NOT_RELP),
        (b"2 syslog " + b"9" * 900, NOT_RELP),
        (b"2 syslog 999999999 abc\n", NOT_RELP),
        (b"2 syslog 5\nabcde\n", NOT_RELP),
        (b"2 " + b"a" * 33 + b" 0\n", NOT_RELP),
        (b"2  0\n", NOT_RELP),
        (b"\n", NOT_RELP),
        (b"5 syslog 1 x\n", "RELP frame 5, expected 2"),
        (b"1 syslog 1 x\n", "RELP frame 1, expected 2"),
        (b"2 starttls 0\n", "RELP frame 2, unknown command starttls"),
        (b"2 rsp 6 200 OK\n", "RELP frame 2, unknown command rsp"),
        (b"2 syslog 3 abcd", "RELP frame of 3 bytes, no LF behind it"),
        (b"2 syslog 300 " + b"x" * 301, "RELP frame of 300 bytes, no LF behind it"),
    ],
)
def test_what_is_no_relp_ends_the_session_and_only_it(data: bytes, reason: str) -> None:
    for pieces in ([OPEN[:-1] + b"\n" + data], [OPEN, *(data[place : place + 1] for place in range(len(data)))]):
        got = hear(pieces)
        assert got.answer == OPENED + CLOSED
        assert got.reasons == [reason]
        assert got.turns[-1].last
        assert got.rejects[0].raw
        assert len(got.rejects[0].raw) <= MAX
    assert hear([OPEN + data]).rejects[0].raw.startswith(data.removesuffix(b"\n")[:MAX])


def test_messages_before_garbage_are_stored_and_get_their_responses() -> None:
    got = hear([OPEN + syslog(2, b"<13>a") + b"garbage"])
    assert (got.messages, got.answer, got.rejects[0].raw) == (["a"], OPENED + taken(2) + CLOSED, b"garbage")


def test_an_open_without_syslog_is_refused() -> None:
    for offers in (b"relp_version=0", b"commands=syslogger", b"nocommands=syslog", b"relp_software=syslog"):
        got = hear([b"1 open %d %b\n" % (len(offers), offers)])
        assert got.answer == b"1 rsp 44 500 required command not supported by client\n" + CLOSED
        assert got.turns[-1].last


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"1 sys", "RELP header, cut short after 5 bytes"),
        (b"1 syslog 10 abc", "RELP frame of 10 bytes, cut short after 3"),
        (b"1 syslog 3 abc", "RELP frame of 3 bytes, cut short after 3"),
        (b"1 syslog 1000 " + b"x" * 200, "RELP frame of 1000 bytes, cut short after 200"),
    ],
)
def test_a_frame_that_the_end_cuts_short_is_a_reject_without_response(start: bytes, reason: str) -> None:
    got = hear([start])
    assert (got.reasons, got.answer, got.records) == ([reason], CLOSED, [])
    assert got.rejects[0].raw == start[:MAX]


def test_the_end_between_two_frames_is_nothing() -> None:
    assert hear([OPEN + syslog(2, b"<13>a")]).turns == hear([OPEN + syslog(2, b"<13>a")], close=False).turns


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """A stream and the messages that it brings; then perhaps what is none."""
    texts = draw(st.lists(st.binary(max_size=130), max_size=12))
    data = OPEN + b"".join(syslog(number, text) for number, text in enumerate(texts, 2))
    number = len(texts) + 2
    ends = [
        b"",
        b"%d close 0\n" % number,
        b"%d other 2 ab\n" % number,
        syslog(number + 1, b"x"),
        b"%d syslog 3 abcd" % number,
    ]
    return data + draw(st.sampled_from(ends) | st.binary(max_size=40)), texts


@settings(max_examples=200, deadline=None)
@given(streams(), st.lists(st.integers(0, 2000)))
def test_wherever_a_stream_is_cut_it_gives_the_same(stream: tuple[bytes, list[bytes]], places: list[int]) -> None:
    data, texts = stream
    whole = hear([data])
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    pieces = hear([data[start:end] for start, end in pairwise(bounds)])
    assert (pieces.records, pieces.answer, pieces.reasons) == (whole.records, whole.answer, whole.reasons)
    assert b" 500" not in whole.answer
    # Whatever follows, no message is lost, and each has its response.
    kept = decode_syslog([text[:MAX] for text in texts if text], ORIGIN)
    assert whole.messages[: len(kept.records)] == [record.message for record in records_of([Turn(kept)])]
    assert whole.answer.startswith(OPENED + taken(*range(2, len(texts) + 2)))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=50) | st.sampled_from([b"1 ", b"syslog ", b"open ", b"3 abc", b"\n", b"0"])))
@example([b"1 syslog 0 x"])
def test_no_bytes_raise(pieces: list[bytes]) -> None:
    got = hear(pieces)
    assert all(turn.last == (turn is got.turns[-1]) for turn in got.turns if turn.last)


def test_a_session_holds_at_most_one_frame() -> None:
    sessions = [RelpSession(1000, decode_syslog) for _ in range(10)]
    read = b"".join(syslog(number, b"<13>" + b"x" * 500) for number in range(1, 100))
    tracemalloc.start()
    try:
        for session in sessions:
            session.feed(bytes(bytearray(read)) + b"100 syslog 50000000 ", ORIGIN)
            for _ in range(20):
                session.feed(bytes(5000), ORIGIN)
        assert tracemalloc.get_traced_memory()[0] < 10 * 5000
    finally:
        tracemalloc.stop()


# --- what librelp said and answered -----------------------------------------------------------------------------------


def vectors(name: str) -> list[Any]:
    path = VECTORS / f"{name}.json"
    skip = pytest.mark.skip(reason=f"no folder {VECTORS}")
    if not path.is_file():
        return [pytest.param({}, marks=skip)]
    return [pytest.param(case, id=case["name"]) for case in json.loads(path.read_text())]


def in_our_words(answer: str) -> str:
    """We have another name, which is shorter."""
    return answer.replace("librelp,1.11.0,http://librelp.adiscon.com", "logagg").replace("rsp 93", "rsp 58")


@pytest.mark.parametrize("case", vectors("relp_probes"))
def test_a_probe_is_answered_as_librelp_answers_it(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["input_hex"])
    chunks = [bytes.fromhex(chunk) for chunk in case["chunks_hex"] or []]
    for pieces in (chunks, [data[place : place + 1] for place in range(len(data))]):
        if pieces:
            got = hear(pieces, 131_072, close=False)
            assert got.answer.decode() == in_our_words(case["reference_response"])
            assert any(turn.last for turn in got.turns) == case["reference_closed"]
            received = [line for line in case["reference_receiver_output"].split("\n") if line.startswith("<13>")]
            # librelp's test program prints a message up to its NUL.
            assert [message.split("\ufffd")[0] for message in got.messages] == [line[4:] for line in received]


@pytest.mark.parametrize("case", vectors("relp_transcripts_raw"))
def test_a_session_of_librelp_goes_as_recorded(case: dict[str, Any]) -> None:
    session = RelpSession(131_072, decode_syslog)
    answers, expected = b"", ""
    records = []
    for part in case["transcript"]:
        if part["dir"] == "C":
            assert answers.decode() == expected
            got = heard(session.feed(bytes.fromhex(part["hex"]), ORIGIN))
            answers += got.answer
            records += got.records
        else:
            expected += in_our_words(bytes.fromhex(part["hex"]).decode())
    assert answers.decode() == expected
    # Of a long message the recording of what librelp's test program printed has the end only.
    text = case["receiver_output"].split("\n")[0]
    (record,) = records
    assert record.message.endswith(records_of([Turn(decode_syslog([text.encode()], ORIGIN))])[0].message)


# --- omrelp of rsyslog ------------------------------------------------------------------------------------------------


class Receiver(asyncio.Protocol):
    """The least listener that a session needs."""

    def __init__(self, records: list[Record], enough: asyncio.Event, count: int) -> None:
        self._session = RelpSession(1 << 20, decode_syslog)
        self._records, self._enough, self._count = records, enough, count

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        got = heard(self._session.feed(data, ORIGIN))
        self._records += got.records
        self._transport.write(got.answer)
        if any(turn.last for turn in got.turns):
            self._transport.close()
        if len(self._records) >= self._count:
            self._enough.set()


def omrelp() -> str:
    program = shutil.which("rsyslogd", path="/usr/sbin:/sbin:/usr/bin")
    if not program or not any(Path("/usr").glob("lib*/**/rsyslog/omrelp.so")):
        pytest.skip("omrelp is not installed (Debian: apt install rsyslog rsyslog-relp)")
    return program


async def test_rsyslog_sends_200_lines(tmp_path: Path) -> None:
    program = omrelp()
    records: list[Record] = []
    enough = asyncio.Event()
    server = await asyncio.get_running_loop().create_server(partial(Receiver, records, enough, 200), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    texts = [f"line {number} of 200, größer" for number in range(200)]
    (tmp_path / "log").write_text("".join(f"{text}\n" for text in texts))
    (tmp_path / "rsyslog.conf").write_text(
        f'global(workDirectory="{tmp_path}")\nmodule(load="imfile")\nmodule(load="omrelp")\n'
        f'input(type="imfile" File="{tmp_path / "log"}" Tag="shop:" Facility="local3")\n'
        f'action(type="omrelp" target="127.0.0.1" port="{port}")\n'
    )
    process = await asyncio.create_subprocess_exec(
        program, "-n", "-f", tmp_path / "rsyslog.conf", "-i", tmp_path / "rsyslog.pid"
    )
    try:
        async with asyncio.timeout(60):
            await enough.wait()
    finally:
        process.terminate()
        await process.wait()
        server.close()
        await server.wait_closed()
    assert [record.message for record in records if record.service == "shop"] == texts
    assert {(record.facility, record.severity) for record in records if record.service == "shop"} == {(19, 5)}
