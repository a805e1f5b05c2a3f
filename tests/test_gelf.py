import gzip
import json
import zlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.columns import Columnar
from logagg.protocols.gelf import CHUNK, GELF, HEADER, GelfAssembler, GelfFramer, decode_gelf, decode_one_by_one
from logagg.protocols.http import Malformed, Request, Taken
from logagg.protocols.json_columns import FEW
from logagg.protocols.limits import TooLarge
from logagg.protocols.record import Origin, Record

if TYPE_CHECKING:
    from logagg.tests.decoded import in_records, messages, rest
else:
    from decoded import in_records, messages, rest

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORIGIN = Origin(NOW, "gelf-udp", "192.0.2.9", "staging")
LIMIT = 1 << 20
#: The example of the specification.
SPEC = {
    "version": "1.1",
    "host": "example.org",
    "short_message": "A short message that helps you identify what is going on",
    "full_message": "Backtrace here\n\nmore stuff",
    "timestamp": 1385053862.3072,
    "level": 1,
    "_user_id": 9001,
    "_some_info": "foo",
    "_some_env_var": "bar",
}


def payload(message: str = "hello", **more: Any) -> bytes:
    return json.dumps({"version": "1.1", "host": "h", "short_message": message, "level": 6, **more}).encode()


def chunks(data: bytes, count: int, name: bytes = b"12345678") -> list[bytes]:
    step = -(-len(data) // count)
    return [CHUNK + name + bytes([n, count]) + data[n * step : (n + 1) * step] for n in range(count)]


def one(obj: dict[str, Any] | bytes) -> Record:
    (record,), rejects = in_records(decode_gelf([obj if isinstance(obj, bytes) else json.dumps(obj).encode()], ORIGIN))
    assert rejects == []
    return record


PAYLOADS = st.fixed_dictionaries(
    {"short_message": st.text(max_size=5)},
    optional={
        "version": st.just("1.1"), "host": st.text(max_size=3), "level": st.integers(-1, 9), "message": st.just("m"),
        "timestamp": st.floats(0, 2e9) | st.just("x"), "_service": st.just("s"), "_k": st.none() | st.integers(),
        "k": st.text(max_size=3), "full_message": st.just("all"),
    },
)  # fmt: skip


# Fields.


def test_the_example_of_the_specification() -> None:
    record = one(SPEC)
    assert record.timestamp == datetime(2013, 11, 21, 17, 11, 2, 307200, tzinfo=UTC)
    assert (record.received_at, record.severity, record.host, record.source) == (NOW, 1, "example.org", "192.0.2.9")
    assert (record.message, record.environment) == (SPEC["short_message"], "staging")
    assert rest(record) == {
        "full_message": "Backtrace here\n\nmore stuff",
        "user_id": 9001,
        "some_info": "foo",
        "some_env_var": "bar",
    }


def test_a_level_that_is_not_there_is_alert() -> None:
    assert one({"short_message": "m", "host": "h"}).severity == 1
    assert one({"short_message": "m", "_level": "INFO"}).severity == 6


def test_additional_fields_may_be_fields_of_the_record_but_never_take_one_away() -> None:
    record = one(
        {"short_message": "m", "host": "h", "_service": "api", "_host": "x", "_message": "y", "_msg": "z", "_": 1}
    )
    assert (record.message, record.host, record.service) == ("m", "h", "api")
    assert rest(record) == {"_host": "x", "_message": "y", "msg": "z", "_": 1}
    record = one({"short_message": "m", "message": "other", "version": "2"})
    assert (record.message, rest(record)) == ("m", {"_message": "other", "version": "2"})


def test_a_message_without_its_short_form() -> None:
    assert one({"full_message": "long", "host": "h", "level": 3}).message == "long"
    assert one({"short_message": "", "host": "h", "level": 3}).message == ""


@pytest.mark.parametrize("facility", ["gelf-rb", 3])
def test_the_facility_of_gelf_1_0_is_a_text_of_the_sender(facility: object) -> None:
    record = one({"version": "1.0", "short_message": "m", "facility": facility, "file": "a.rb", "line": 7})
    assert record.facility == (3 if facility == 3 else None)
    assert rest(record)["file"] == "a.rb"
    assert rest(record)["line"] == 7
    assert facility == 3 or rest(record)["facility"] == facility


def test_what_cannot_be_stored_is_replaced_and_the_bytes_are_kept() -> None:
    for frame in (b'{"short_message":"a\\u0000b"}', b'{"short_message":"a\xffb"}'):
        record = one(frame)
        assert (record.message, record.raw) == ("a\ufffdb", frame)


@pytest.mark.parametrize("bad", [b"no json", b"[1]", b"42", b'{"short_message":"m"', b'{"a":' * 9000])
def test_what_is_no_object_is_a_reject_and_costs_no_neighbour(bad: bytes) -> None:
    decoded = decode_gelf([payload("a"), bad, b" \n\0", payload("b")], ORIGIN)
    assert messages(decoded) == ["a", "b"]
    assert [(reject.raw, reject.transport) for reject in decoded.rejects] == [(bad, "gelf-udp")]


# Datagrams.


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zlib.compress, lambda data: bytes(cramjam.zstd.compress(data))])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_a_message_comes_compressed_or_not_in_chunks_or_not(pack: Any, count: int) -> None:
    data = pack(payload("hello " * 40))
    assembler = GelfAssembler(LIMIT)
    decoded = assembler(chunks(data, count) if count else [data], ORIGIN)
    assert messages(decoded) == ["hello " * 40]
    assert (decoded.rejects, assembler.held) == ([], 0)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_chunks_come_in_any_order_in_any_reads_and_twice(data: st.DataObject) -> None:
    texts = [f"message {number} " * (number + 1) for number in range(4)]
    frames = [
        frame
        for number, text in enumerate(texts)
        for frame in chunks(payload(text), number + 1, number.to_bytes(8, "big"))
    ]
    frames = data.draw(st.permutations([*frames, *frames[1:4]]))
    assembler, found = GelfAssembler(LIMIT), []
    while frames:
        step = data.draw(st.integers(1, len(frames)))
        now, frames = frames[:step], frames[step:]
        decoded = assembler(now, ORIGIN)
        assert decoded.rejects == []
        found += messages(decoded)
    assert set(found) == set(texts)  # a message whose every chunk comes again begins again


def test_ids_are_of_one_sender() -> None:
    assembler = GelfAssembler(LIMIT)
    first, second = chunks(payload("a" * 9), 2)
    other, last = chunks(payload("b" * 9), 2)
    there = ORIGIN._replace(peer="192.0.2.10")
    assert assembler([first], ORIGIN) == assembler([other], there) == ([], [])
    assert messages(assembler([last], there)) == ["b" * 9]
    assert messages(assembler([second], ORIGIN)) == ["a" * 9]


def test_a_message_that_is_not_whole_in_time_is_a_reject_with_what_came() -> None:
    assembler = GelfAssembler(LIMIT)
    data = payload("x" * 30)
    parts = chunks(data, 4)
    assembler([parts[2], parts[0]], ORIGIN)
    assert assembler.expire(NOW + timedelta(seconds=5)) == ([], [])
    later = ORIGIN._replace(now=NOW + timedelta(seconds=5.1))
    decoded = assembler([payload("next")], later)
    assert messages(decoded) == ["next"]
    (reject,) = decoded.rejects
    assert reject.reason == ("GELF message 3132333435363738 not whole after 5 s: 2 of 4 chunks came, missing: 1, 3")
    assert (reject.raw, reject.received_at) == (parts[0][HEADER:] + parts[2][HEADER:], NOW)
    assert assembler.held == 0


def test_nothing_is_left_at_the_end() -> None:
    assembler = GelfAssembler(LIMIT)
    assembler(chunks(payload(), 3)[:2] + chunks(payload(), 3, b"87654321")[:1], ORIGIN)
    assert [reject.reason.partition(" not ")[2][:16] for reject in assembler.close().rejects] == [
        "whole at the end"
    ] * 2
    assert (assembler.held, assembler.close()) == (0, ([], []))


def test_what_is_never_completed_takes_no_more_than_its_room() -> None:
    assembler, rejects = GelfAssembler(100_000), 0
    for number in range(2000):
        rejects += len(assembler(chunks(b"x" * 1000, 2, number.to_bytes(8, "big"))[:1], ORIGIN).rejects)
        assert assembler.held <= 100_000
    assert rejects + len(assembler.close().rejects) == 2000


def test_one_chunk_beyond_all_room_is_given_up_at_once() -> None:
    (reject,) = GelfAssembler(1000)(chunks(b"x" * 4000, 2)[:1], ORIGIN).rejects
    assert (reject.raw, "at most 1000" in reject.reason) == (b"x" * 2000, True)


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        (CHUNK, "GELF chunk of 2 bytes, at least 12"),
        (CHUNK + b"12345678\x00", "GELF chunk of 11 bytes, at least 12"),
        (CHUNK + b"12345678\x00\x00x", "GELF chunk 0 of 0: numbers are from 0, at most 128 chunks"),
        (CHUNK + b"12345678\x02\x02x", "GELF chunk 2 of 2: numbers are from 0, at most 128 chunks"),
        (CHUNK + b"12345678\x00\x81x", "GELF chunk 0 of 129: numbers are from 0, at most 128 chunks"),
        (CHUNK + b"12345678\x01\x03x", "GELF chunk 1 of 3: its message has another such chunk, of 2"),
        (CHUNK + b"12345678\x00\x02x", "GELF chunk 0 of 2: its message has another such chunk, of 2"),
    ],
)
def test_a_bad_chunk_is_a_reject_and_harms_no_message(chunk: bytes, reason: str) -> None:
    first, second = chunks(payload("good"), 2)
    decoded = GelfAssembler(LIMIT)([first, chunk, second], ORIGIN)
    assert messages(decoded) == ["good"]
    assert [(reject.raw, reject.reason) for reject in decoded.rejects] == [(chunk, reason)]


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, lambda data: bytes(cramjam.zstd.compress(data))])
def test_a_small_datagram_cannot_become_a_large_message(pack: Any) -> None:
    bomb = pack(b" " * 5_000_000)
    decoded = GelfAssembler(LIMIT, max_message=1 << 20)([bomb, payload("good")], ORIGIN)
    assert messages(decoded) == ["good"]
    assert decoded.rejects[0].raw == bomb
    assert str(1 << 20) in decoded.rejects[0].reason


@settings(deadline=None, max_examples=200)
@given(st.lists(st.binary(min_size=1, max_size=40) | st.binary(max_size=20).map(CHUNK.__add__), max_size=9))
def test_any_datagrams_are_records_or_rejects(frames: list[bytes]) -> None:
    assembler = GelfAssembler(5000)
    decoded = assembler([payload("good"), *frames], ORIGIN)
    assert messages(decoded)[0] == "good"
    assert assembler.held <= 5000
    kept = b"".join(reject.raw for reject in decoded.rejects + assembler.close().rejects)
    for frame in frames:
        if frame[:2] != CHUNK and frame.strip(b" \t\r\n\0"):
            assert frame in kept or decoded.records[1:]


@settings(deadline=None, max_examples=100)
@given(st.lists(PAYLOADS, min_size=1, max_size=3))
def test_many_payloads_are_the_same_as_each_for_itself(some: list[dict[str, Any]]) -> None:
    frames = [json.dumps(obj).encode() for obj in some] * FEW
    assert in_records(decode_gelf(frames, ORIGIN)) == decode_one_by_one(frames, ORIGIN)


def test_many_payloads_become_columns() -> None:
    frames = [payload(_k=number) for number in range(FEW)]
    assert isinstance(decode_gelf(frames, ORIGIN), Columnar)
    bad = [*frames, b"bad"]
    assert in_records(decode_gelf(bad, ORIGIN)) == decode_one_by_one(bad, ORIGIN)


# Streams.


@pytest.mark.parametrize("end", [b"\0", b"\n", b"\r\n", b"\0\n"])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_nul_or_a_line_feed_ends_a_message_of_a_stream(end: bytes, step: int) -> None:
    stream = end.join([payload("a"), payload("b"), payload("c")])
    framer = GelfFramer(1000)
    frames = [frame for at in range(0, len(stream), step) for frame in framer.feed(stream[at : at + step])]
    assert messages(decode_gelf(frames + framer.close(), ORIGIN)) == ["a", "b", "c"]


# HTTP.


def post(body: bytes) -> Taken:
    return GELF.take(Request("POST", "/gelf", {}, {}, body, LIMIT), ORIGIN._replace(transport="gelf-http"))


@pytest.mark.parametrize(
    "body",
    [
        payload("a") + b"\n" + payload("b") + b"\n",
        b"[" + payload("a") + b"," + payload("b") + b"]",
        zlib.compress(payload("a") + b"\n" + payload("b")),
        payload("a") + b"\0" + payload("b"),
    ],
)
def test_a_body_of_several(body: bytes) -> None:
    taken = post(body)
    assert [record.message for record in taken.decoded.records] == ["a", "b"]  # type: ignore[union-attr]  # a list
    assert (taken.answer.status, taken.answer.body) == (202, b"")


def test_a_body_of_one_over_many_lines_and_one_with_a_bad_line() -> None:
    pretty = json.dumps(SPEC, indent=2).encode()
    assert [len(part) for part in post(pretty).decoded] == [1, 0]
    assert [len(part) for part in post(pretty.replace(b"foo", b"\\u0000")).decoded] == [1, 0]
    assert [len(part) for part in post(payload() + b"\nbad\n" + payload()).decoded] == [2, 1]


@pytest.mark.parametrize("body", [b"", b" \n", b"bad", b"[]", b"[1]", zlib.compress(b"x" * 99)[:-3]])
def test_a_body_of_none_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed, match="no GELF in a body of"):
        post(body)
    assert GELF.refuse(400, "why", {}) == (400, b"why", "text/plain", {})


def test_a_body_that_becomes_too_large() -> None:
    with pytest.raises(TooLarge):
        post(zlib.compress(b" " * (LIMIT + 1)))
