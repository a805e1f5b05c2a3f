import itertools
import json
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logagg.protocols.framing import Cut, JsonFramer, LineFramer, SyslogFramer

Found = tuple[list[bytes], list[Cut], list[tuple[bytes, str]]]


def run(framer: LineFramer, pieces: list[bytes]) -> Found:
    frames = [frame for piece in pieces for frame in framer.feed(piece)] + framer.close()
    return frames, framer.take_cut(), framer.take_broken()


def cut_at(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(bounds)]


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        (b"", []),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"a\n\n\r\nb\n", [b"a", b"b"]),
        (b"a\nlast", [b"a", b"last"]),
        (b"a\rb\n", [b"a\rb"]),
        (b"a\0b\n", [b"a\0b"]),
        (b"5 abc\n", [b"5 abc"]),
    ],
)
def test_lines(stream: bytes, frames: list[bytes]) -> None:
    assert run(LineFramer(100), [stream]) == (frames, [], [])


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        (b"<1>a\n<2>b\n", [b"<1>a", b"<2>b"]),
        (b"<1>a\r\n<2>b\r\n", [b"<1>a", b"<2>b"]),
        (b"<1>a\0<2>b\0", [b"<1>a", b"<2>b"]),
        (b"<1>a\0\n<2>b\0\n", [b"<1>a", b"<2>b"]),
        (b"<1>Traceback:\n  File\nError\0<2>b\0", [b"<1>Traceback:", b"  File", b"Error", b"<2>b"]),
        (b"<1>a\0b\n<2>c\n", [b"<1>a\0b", b"<2>c"]),
        (b"4 <1>a4 <2>b", [b"<1>a", b"<2>b"]),
        (b"5 <1>a\n4 <2>b\n", [b"<1>a\n", b"<2>b"]),
        (b"6 <1>\na\n4 <2>b", [b"<1>\na\n", b"<2>b"]),
        (b"<1>a\n4 <2>b<3>c\n4 <4>d", [b"<1>a", b"<2>b", b"<3>c", b"<4>d"]),
        (b"4 <1>a<2>b\n<3>c\n4 <4>d<5>e", [b"<1>a", b"<2>b", b"<3>c", b"<4>d", b"<5>e"]),
        (b"2026-11-22T12:00:00Z host app: text\n", [b"2026-11-22T12:00:00Z host app: text"]),
        (b"04 <1>a\n", [b"04 <1>a"]),
        (b"123456789 <1>a\n", [b"123456789 <1>a"]),
        (b"<1>a\n12", [b"<1>a", b"12"]),
        (b"12\n<1>a", [b"12", b"<1>a"]),
    ],
)
def test_syslog(stream: bytes, frames: list[bytes]) -> None:
    assert run(SyslogFramer(100), [stream]) == (frames, [], [])
    assert run(SyslogFramer(100), [stream[i : i + 1] for i in range(len(stream))])[1:] == ([], [])


def test_a_nul_that_ends_what_has_arrived_ends_the_line_at_once() -> None:
    framer = SyslogFramer(100)
    assert framer.feed(b"<1>a\0") == [b"<1>a"]
    assert framer.feed(b"<2>b") == []
    assert framer.feed(b"\0") == [b"<2>b"]


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        (b'{"a":1}\n{"a":2}\n', [b'{"a":1}', b'{"a":2}']),
        (b'[{"a":1},{"a":2}][{"a":3}]', [b'[{"a":1},{"a":2}]', b'[{"a":3}]']),
        (b'{"a":1}{"b":{"c":[2]}} {"d":3}', [b'{"a":1}', b'{"b":{"c":[2]}}', b' {"d":3}']),
        (rb'{"a":"}{\""}{"b":"\\"}{"c":"][\\\""}', [rb'{"a":"}{\""}', rb'{"b":"\\"}', rb'{"c":"][\\\""}']),
        (b'{"a":1}{"b":"no end\n{"c":1}', [b'{"a":1}{"b":"no end', b'{"c":1}']),
        (b'}}]]{"a":1}\r\n{"a":[1,\n[2]', [b'}}]]{"a":1}', b'{"a":[1,', b"[2]"]),
    ],
)
def test_json(stream: bytes, frames: list[bytes]) -> None:
    assert run(JsonFramer(100), [stream]) == (frames, [], [])


def test_a_json_value_is_given_as_soon_as_it_is_closed_and_a_line_as_soon_as_it_ends() -> None:
    framer = JsonFramer(100)
    assert framer.feed(b'[{"a":"]') == []
    assert framer.feed(b'"},') == []
    assert framer.feed(b'{"b":2}][{"c":3}]{"d"') == []
    assert framer.feed(b":4}") == [b'[{"a":"]"},{"b":2}]', b'[{"c":3}]', b'{"d":4}']
    assert framer.feed(b'\n{"e":5}\r\n{"f":') == [b'{"e":5}']
    assert framer.feed(b"6}\n") == [b'{"f":6}']
    assert framer.close() == []


def test_values_without_line_ends_are_given_before_there_are_too_many_to_hold() -> None:
    framer = JsonFramer(1000)
    value = b'{"a":"%b"}' % (b"x" * 200)
    given = framer.feed(value * 4 + value[:150])
    assert given == []
    assert framer.feed(value[150:] + value[:150]) == [value] * 5
    assert framer.feed(value[150:] + value * 3 + b"\n") == [value * 4]
    assert framer.feed(value * 9 + b"\n" + value + b"\n") == [value] * 10
    assert framer.take_cut() == []


def test_an_overlong_json_value_costs_no_neighbour() -> None:
    long = b'{"a":"%b"}' % (b"]" * 500)
    assert run(JsonFramer(50), [b"[1]" + long[:200], long[200:] + b"[2]" + long, b"\n[3]"]) == (
        [b"[1]", b"[2]", b"[3]"],
        [Cut(long[:50], len(long))] * 2,
        [],
    )


@pytest.mark.parametrize("framer", [LineFramer(5), SyslogFramer(5), JsonFramer(5)])
def test_an_overlong_line_costs_no_neighbour(framer: LineFramer) -> None:
    frames, cut, broken = run(
        framer, [b"<1>a\n<2>long\n<3>b\n<4>lo", b"nger", b"est\r\n<5>c\r\n12345\r\n", b"<6>too long"]
    )
    assert frames == [b"<1>a", b"<3>b", b"<5>c", b"12345"]
    assert cut == [Cut(b"<2>lo", 7), Cut(b"<4>lo", 13), Cut(b"<6>to", 11)]
    assert broken == []


def test_an_overlong_counted_frame_costs_no_neighbour() -> None:
    frames, cut, broken = run(SyslogFramer(5), [b"4 <1>a7 <2>long4 <3>b9 <4>lo", b"nger", b"5 <5>cc<6>d\n"])
    assert frames == [b"<1>a", b"<3>b", b"<5>cc", b"<6>d"]
    assert cut == [Cut(b"<2>lo", 7), Cut(b"<4>lo", 9)]
    assert broken == []


def test_a_counted_frame_cut_short_is_broken() -> None:
    assert run(SyslogFramer(100), [b"4 <1>a16 <2>", b"b"]) == (
        [b"<1>a"],
        [],
        [(b"16 <2>b", "counted frame of 16 bytes, cut short after 4")],
    )
    framer = SyslogFramer(100)
    assert run(framer, [b"16 "])[2] == [(b"16 ", "counted frame of 16 bytes, cut short after 0")]
    assert run(framer, [b"<1>a\n"]) == ([b"<1>a"], [], [])


def test_taking_empties() -> None:
    framer = LineFramer(2)
    framer.feed(b"abc\n")
    assert framer.take_cut() == [Cut(b"ab", 3)]
    assert framer.take_cut() == []


@pytest.mark.parametrize("kind", [SyslogFramer, JsonFramer])
@pytest.mark.parametrize("stream", [b"x" * 65536, b"99999999 " + b"x" * 65527, b"<1>\0x" * 13107, b"[" * 65536])
def test_memory_is_bounded_by_the_limit(kind: type[LineFramer], stream: bytes) -> None:
    framer = kind(10_000)
    framer.feed(stream)
    tracemalloc.start()
    for _ in range(10 if kind is JsonFramer else 160):  # which looks at each bracket
        framer.feed(stream[9:])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(stream)


@pytest.mark.parametrize("framer", [SyslogFramer(1 << 20), JsonFramer(1 << 20)])
@pytest.mark.parametrize("line", [b"<1>" + b"x" * 50_000, b'{"a":"' + b"}" * 50_000])
def test_a_drip_of_single_bytes(framer: LineFramer, line: bytes) -> None:
    for place in range(len(line)):
        assert framer.feed(line[place : place + 1]) == []
    assert framer.feed(b"\n") == [line]


places = st.lists(st.integers(0, 1000), max_size=8)
lines = st.binary(max_size=12).map(lambda data: data.replace(b"\n", b""))


@settings(deadline=None)
@given(st.binary(max_size=200) | st.lists(lines).map(b"\r\n".join), places, st.integers(1, 20))
def test_lines_are_the_same_however_the_stream_is_cut(stream: bytes, at: list[int], limit: int) -> None:
    whole = run(LineFramer(limit), [stream])
    assert run(LineFramer(limit), cut_at(stream, at)) == whole
    wanted = [line.removesuffix(b"\r") for line in stream.split(b"\n")]
    assert whole[0] == [line for line in wanted if 0 < len(line) <= limit]
    assert [cut.frame for cut in whole[1]] == [line[:limit] for line in wanted if len(line) > limit]


json_values = st.recursive(
    st.integers(0, 9) | st.text('ab"\\[]{},: \n\u00e9', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('k"\\}', max_size=3), inner, max_size=3),
    max_leaves=6,
)
json_lists = st.lists(
    st.tuples(
        st.lists(json_values, max_size=3) | st.dictionaries(st.text("k"), json_values, max_size=3), st.booleans()
    ),
    max_size=8,
)


@settings(deadline=None)
@given(json_lists, places, st.integers(1, 60))
def test_json_values_are_the_same_however_the_stream_is_cut(
    values: list[tuple[object, bool]], at: list[int], limit: int
) -> None:
    """Several of a line may be one frame, when the line comes to its end in time."""
    texts = [json.dumps(value).encode() for value, _ in values]
    stream = b"".join(text + b"\n" * end for text, (_, end) in zip(texts, values, strict=True))
    frames, cut, broken = run(JsonFramer(limit), cut_at(stream, at))
    assert broken == []
    assert b"".join(frames) == b"".join(text for text in texts if len(text) <= limit)
    assert cut == [Cut(text[:limit], len(text)) for text in texts if len(text) > limit]
    assert all(len(frame) <= limit for frame in frames)


text = st.text("ab \r\u00e9<12", max_size=12).map(lambda word: b"<1>" + word.encode().rstrip(b"\r"))
ended = st.tuples(text, st.sampled_from([b"\n", b"\r\n", b"\0", b"\0\n"])).map(lambda pair: ("line", *pair))
counted = st.binary(min_size=1, max_size=15).map(lambda data: ("count", data, b""))


@settings(deadline=None)
@given(st.lists(ended | counted, max_size=8), places, st.integers(3, 20))
def test_syslog_frames_are_the_same_however_the_stream_is_cut(
    parts: list[tuple[str, bytes, bytes]], at: list[int], limit: int
) -> None:
    """No NUL within a line: one behind which nothing has arrived ends the line. And none before a count."""
    stream = b""
    for (kind, data, end), (following, _, _) in itertools.pairwise([*parts, ("nothing", b"", b"")]):
        if kind == "count":
            stream += b"%d %b" % (len(data), data)
        else:
            stream += data + (b"\n" if following == "count" and end == b"\0" else end)
    frames, cut, broken = run(SyslogFramer(limit), cut_at(stream, at))
    bodies = [data for _, data, _ in parts]
    assert frames == [data for data in bodies if len(data) <= limit]
    assert [head for head, _ in cut] == [data[:limit] for data in bodies if len(data) > limit]
    assert broken == []


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(1, 20))
@example([b"1", b"0"], 1)  # digits that might have become a count
@pytest.mark.parametrize("kind", [SyslogFramer, JsonFramer])
def test_any_bytes_are_framed(kind: type[LineFramer], pieces: list[bytes], limit: int) -> None:
    frames, cut, broken = run(kind(limit), pieces)
    assert all(0 < len(frame) <= limit for frame in frames)
    assert all(len(frame) == limit < length for frame, length in cut)
    assert len(broken) <= 1
