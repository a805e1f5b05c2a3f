"""Fluent Forward: the four forms of a message, the ack, and what is hostile."""

import gzip
import json
import random
import struct
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import cramjam
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.forward import ForwardSession
from logagg.protocols.json_columns import FEW
from logagg.protocols.record import Origin
from logagg.protocols.session import Turn

if TYPE_CHECKING:
    from logagg.tests.turns import records_of, rejects_of, texts_of
else:
    from turns import records_of, rejects_of, texts_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORIGIN = Origin(NOW, "forward", "192.0.2.9", None)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AT = 1_732_000_000


def session(**more: Any) -> ForwardSession:
    return ForwardSession(**{"max_frame": 100_000, "max_inflated": 200_000} | more)


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def event_time(seconds: int = AT) -> msgpack.ExtType:
    return msgpack.ExtType(0, struct.pack(">II", seconds, 0))


def entries(*texts: str) -> list[Any]:
    return [[event_time(), {"log": text}] for text in texts]


def packed(*texts: str) -> bytes:
    return b"".join(map(pack, entries(*texts)))


OPTIONS = {"chunk": "abc", "size": 2}
FORMS = {
    "forward": pack(["t", entries("a", "b"), OPTIONS]),
    "packed": pack(["t", packed("a", "b"), OPTIONS]),
    "packed as text": b"\x93\xa1t\xd9" + bytes([len(packed("a", "b"))]) + packed("a", "b") + pack(OPTIONS),
    "gzip": pack(["t", gzip.compress(packed("a", "b")), OPTIONS | {"compressed": "gzip"}]),
    "gzip, two members": pack(
        ["t", gzip.compress(packed("a")) + gzip.compress(packed("b")), OPTIONS | {"compressed": "gzip"}]
    ),
    "zstd": pack(["t", bytes(cramjam.zstd.compress(packed("a", "b"))), OPTIONS | {"compressed": "zstd"}]),
    "not compressed": pack(["t", packed("a", "b"), OPTIONS | {"compressed": "text"}]),
}


@pytest.mark.parametrize("wire", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_many_events_is_read_and_answered(wire: bytes) -> None:
    [turn] = session().feed(wire, ORIGIN)

    assert texts_of([turn]) == ["a", "b"]
    assert {record.service for record in records_of([turn])} == {"t"}
    assert (turn.answer, turn.key, turn.size, turn.last) == (pack({"ack": "abc"}), "abc t", len(wire), False)


@pytest.mark.parametrize("time", [event_time(), AT, [event_time(), {}]])
def test_a_message_of_one_event_is_read(time: Any) -> None:
    turns = session().feed(pack(["t", time, {"log": "a"}]), ORIGIN)

    assert texts_of(turns) == ["a"]
    assert records_of(turns)[0].timestamp == EPOCH + timedelta(seconds=AT)
    assert [(turn.answer, turn.key) for turn in turns] == [(b"", None)]


def test_the_metadata_of_a_single_event_is_among_the_options() -> None:
    turns = session().feed(pack(["t", AT, {"log": "a"}, {"metadata": {"m": 1}}]), ORIGIN)

    assert json.loads(records_of(turns)[0].attributes or "") == {"m": 1, "tag": "t"}


def test_messages_that_await_no_answer_are_one_turn_and_each_that_does_is_its_own() -> None:
    plain, answered = pack(["t", AT, {"log": "a"}]), pack(["t", AT, {"log": "b"}, {"chunk": "c"}])

    turns = session().feed(plain + plain + answered + answered + plain, ORIGIN)

    assert [len(turn.decoded.records) for turn in turns] == [2, 1, 1, 1]
    assert [turn.key for turn in turns] == [None, "c t", "c t", None]


def test_the_same_chunk_of_another_tag_has_another_key_and_a_long_one_is_short() -> None:
    messages = [pack([tag, AT, {"log": "a"}, {"chunk": "c" * size}]) for tag, size in (("t", 9), ("u", 9), ("t", 9999))]

    keys = [turn.key for turn in session().feed(b"".join(messages), ORIGIN)]

    assert len(set(keys)) == 3
    assert max(len(key or "") for key in keys) == 64


@pytest.mark.parametrize("options", [[], [{}]])
@pytest.mark.parametrize("odd", [{"log": "odd\0"}, {"a": 1}, {"log": "x", "tag": "mine"}])
def test_many_messages_at_once_are_what_they_are_one_by_one(odd: dict[str, Any], options: list[Any]) -> None:
    messages = [pack([f"t{n % 3}", AT + n, {"log": f"{n}", "n": n}, *options]) for n in range(3 * FEW)]
    for some in (messages, [*messages, pack(["t", AT, odd, *options]), pack(["t", "no time", {}]), *messages]):
        turns = session().feed(b"".join(some), ORIGIN)
        single = [turn for wire in some for turn in session().feed(wire, ORIGIN)]

        assert records_of(turns) == records_of(single)
        assert rejects_of(turns) == rejects_of(single)
        assert len(turns) == 1


@pytest.mark.parametrize("chunk", ["é\n", b"\xff\x00"])
def test_the_ack_repeats_the_chunk_byte_by_byte(chunk: str | bytes) -> None:
    [turn] = session().feed(pack(["t", AT, {"log": "a"}, {"chunk": chunk}]), ORIGIN)

    assert turn.answer == b"\x81\xa3ack" + pack(chunk)
    assert "\0" not in (turn.key or "")


def test_metrics_and_traces_are_answered_and_no_record() -> None:
    [turn] = session().feed(pack(["t", b"\x81\x01\x02", {"chunk": "c", "fluent_signal": 1}]), ORIGIN)

    assert (len(turn.decoded.records), turn.decoded.rejects, turn.answer) == (0, [], pack({"ack": "c"}))


def test_heartbeats_are_nothing() -> None:
    peer = session()

    assert peer.feed(b"\xc0\xc0", ORIGIN) == []
    assert texts_of(peer.feed(b"\xc0" + pack(["t", AT, {"log": "a"}]) + b"\xc0", ORIGIN)) == ["a"]
    assert peer.close(ORIGIN) == []


UNREADABLE = {
    "no gzip": ["t", b"no gzip", {"chunk": "c", "compressed": "gzip"}],
    "bomb": ["t", gzip.compress(bytes(1_000_000)), {"chunk": "c", "compressed": "gzip"}],
    "zstd bomb": ["t", bytes(cramjam.zstd.compress(bytes(1_000_000))), {"chunk": "c", "compressed": "zstd"}],
    "unknown compression": ["t", b"x", {"chunk": "c", "compressed": "lz5"}],
    "no name of compression": ["t", b"x", {"chunk": "c", "compressed": 5}],
}


@pytest.mark.parametrize("message", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_message_that_can_never_be_read_is_kept_and_answered_and_the_next_is_read(message: Any) -> None:
    turns = session().feed(pack(message) + pack(["t", AT, {"log": "a"}]), ORIGIN)

    assert [reject.raw for reject in rejects_of(turns)] == [pack(message)]
    assert turns[0].answer == pack({"ack": "c"})
    assert [record.message for record in records_of(turns)] == ["a"]


@pytest.mark.parametrize("message", [[], ["t"], [5, AT, {}], ["t", AT], [["t"], []], [None, packed("a")]])
def test_an_array_that_is_no_message_is_kept(message: Any) -> None:
    turns = session().feed(pack(message) + pack(["t", AT, {"log": "a"}]), ORIGIN)

    assert [reject.raw for reject in rejects_of(turns)] == [pack(message)]
    assert [record.message for record in records_of(turns)] == ["a"]


@pytest.mark.parametrize(
    ("wire", "number"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "0x47"),
        (b"\x16\x03\x01\x02\x00\x01\x00", "0x16"),
        (b"\x92\xa1t\xdd\xff\xff\xff\xff" + b"x" * 200_000, "more than 100000 bytes"),
        (b"\x92\xa1t\xc6\x38\x40\x00\x00" + b"x" * 200_000, "more than 100000 bytes"),
        (b"\xdd\xff\xff\xff\xff" * 100_000, "nested too deeply"),
        (b"\x91" * 100_000, "nested too deeply"),
        (b"\x92\xa1t\xc1", "not msgpack"),
        (b"[" * 200_000, "more than 100000 bytes"),
    ],
)
def test_what_is_no_forward_ends_the_connection_with_a_reason(wire: bytes, number: str) -> None:
    peer = session()
    turns = [turn for place in range(0, len(wire), 65_536) for turn in peer.feed(wire[place : place + 65_536], ORIGIN)]

    rejects = rejects_of(turns)
    assert [turn.last for turn in turns] == [True]
    assert number in rejects[0].reason
    assert wire.startswith(rejects[0].raw)
    assert 0 < len(rejects[0].raw) <= 100_000
    assert peer.feed(pack(["t", AT, {"log": "a"}]), ORIGIN) == []
    assert peer.close(ORIGIN) == []


def test_a_message_cut_short_is_a_reject_at_the_end() -> None:
    peer, wire = session(), FORMS["packed"][:-3]

    assert peer.feed(wire, ORIGIN) == []
    [turn] = peer.close(ORIGIN)
    assert ([reject.raw for reject in turn.decoded.rejects], turn.last) == ([wire], True)


def test_a_flood_of_what_is_no_message_ends_the_connection() -> None:
    turns = session().feed(pack(["t", AT, {"log": "a"}]) + pack([]) * 5000, ORIGIN)

    assert [record.message for record in records_of(turns)] == ["a"]
    assert turns[-1].last
    assert len(rejects_of(turns)) == 101
    assert sum(len(reject.raw) for reject in rejects_of(turns)) == 5000


def test_json_is_read_and_answered_in_json() -> None:
    first = rb'["t", 1732000000, {"log": "a ] \" }"}, {"chunk": "c"}]'
    wire = first + b'\n {"message": "alone"} ["t", [[1732000000, {"log": "b"}], [1732000000, {"log": "c"}]]]'
    for step in (1, 7, len(wire)):
        peer = session()
        turns = [turn for place in range(0, len(wire), step) for turn in peer.feed(wire[place : place + step], ORIGIN)]

        assert texts_of(turns) == ['a ] " }', "alone", "b", "c"]
        assert (turns[0].answer, turns[0].key) == (b'{"ack":"c"}', "c t")
        assert peer.close(ORIGIN) == []


def test_json_that_is_none_is_kept_and_what_is_no_text_is_replaced() -> None:
    turns = session().feed(b'["t", 1, {x}] ["t", 1732000000, {"log": "\xff"}] ["t", 1, {"log": "\\ud800"}]', ORIGIN)

    assert [reject.raw for reject in rejects_of(turns)] == [b'["t", 1, {x}]']
    assert [record.message for record in records_of(turns)] == ["\ufffd", "\ufffd"]
    assert records_of(turns)[0].raw is not None


# All bytes, all cuttings.

MESSAGES = st.lists(
    st.sampled_from(
        [*FORMS.values(), pack(["u", AT, {"log": "m"}]), pack([5]), b"\xc0", *map(pack, UNREADABLE.values())]
    ),
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(MESSAGES, st.binary(max_size=10), st.randoms(use_true_random=False))
def test_any_cutting_of_the_stream_gives_the_same(messages: list[bytes], tail: bytes, cuts: random.Random) -> None:
    wire = b"".join(messages) + tail
    whole, parts = session(), session()
    expected = whole.feed(wire, ORIGIN) + whole.close(ORIGIN)
    turns, place = list[Turn](), 0
    while place < len(wire):
        step = cuts.randint(1, 60)
        turns += parts.feed(wire[place : place + step], ORIGIN)
        place += step
    turns += parts.close(ORIGIN)

    assert records_of(turns) == records_of(expected)
    assert [reject.reason for reject in rejects_of(turns)] == [reject.reason for reject in rejects_of(expected)]
    assert b"".join(turn.answer for turn in turns) == b"".join(turn.answer for turn in expected)
    assert [turn.key for turn in turns if turn.key] == [turn.key for turn in expected if turn.key]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x92", b"\x93\xa1t", b"[", b'["t",']), st.booleans())
def test_no_bytes_raise_and_none_are_lost(data: bytes, start: bytes, secret: bool) -> None:
    peer = session(shared_key="k" if secret else None)
    turns = peer.feed(start + data, ORIGIN) + peer.close(ORIGIN)

    assert bool(records_of(turns) or rejects_of(turns)) == bool((start + data).strip(b"\xc0"))
