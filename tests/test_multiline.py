import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols.multiline import Joiner
from logagg.protocols.record import Record

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
WINDOW = timedelta(seconds=1)

JAVA = """ERROR could not book order 17
java.lang.IllegalStateException: no stock
\tat shop.Order.book(Order.java:17)
\tat shop.Main.main(Main.java:4)
Caused by: java.io.IOException: timeout
\tat shop.Stock.ask(Stock.java:9)
\tSuppressed: java.io.IOException: close
\t\tat shop.Stock.close(Stock.java:12)
\t... 12 more
... 3 common frames omitted"""
PYTHON = """order 17 failed
Traceback (most recent call last):
  File "/app/shop.py", line 4, in <module>
    book()
KeyError: 'stock'
During handling of the above exception, another exception occurred:
Traceback (most recent call last):
  File "/app/shop.py", line 7, in <module>
    refund()
shop.errors.RefundError: no money"""
GO = """panic: runtime error: index out of range [5] with length 3
goroutine 1 [running]:
main.(*Shop).book(0xc000012345, 0x5)
\t/app/main.go:9 +0x1d
main.main()
\t/app/main.go:4 +0x2a
created by main.run
\t/app/run.go:12
exit status 2"""
NET = """Unhandled exception. System.InvalidOperationException: no stock
   at Shop.Order.Book() in /app/Order.cs:line 17
   --- End of inner exception stack trace ---
--- End of stack trace from previous location ---
   at Shop.Program.Main()"""


def record(message: str, procid: object = None, host: str = "h", raw: bytes | None = None, **more: object) -> Record:
    attributes = {**more, **({} if procid is None else {"procid": procid})}
    text = json.dumps(attributes, separators=(",", ":")) if attributes else None
    return Record(NOW, NOW, 3, None, None, host, "shop", "192.0.2.1", message, text, None, None, raw)


def lines(text: str, procid: object = None) -> list[Record]:
    return [record(line, procid) for line in text.split("\n")]


def join(records: list[Record]) -> list[str]:
    joiner = Joiner(WINDOW)
    return [each.message for each in joiner.feed(records, NOW) + joiner.flush()]


@pytest.mark.parametrize("text", [PYTHON, GO, NET, JAVA.partition("\n")[2]], ids=["python", "go", "net", "java"])
def test_a_trace_is_one_record(text: str) -> None:
    assert join(lines(f"before\n{text}\nafter it\nand more")) == ["before", text, "after it", "and more"]


def test_the_line_before_an_exception_of_java_stays_alone() -> None:
    assert join(lines(JAVA)) == JAVA.split("\n", 1)


@pytest.mark.parametrize("text", ["a\nb", "at noon\nat night", "goroutine\nmain.main()", "x\nKeyError: 'a'", "a\n\nb"])
def test_what_only_looks_alike_is_not_joined(text: str) -> None:
    assert join(lines(text)) == text.split("\n")


def test_nothing_is_joined_across_processes_hosts_or_attributes() -> None:
    woven = [each for pair in zip(lines(PYTHON, 1), lines(GO, "2"), strict=False) for each in pair]
    assert sorted(join(woven)) == sorted([PYTHON.rpartition("\n")[0], GO])
    assert join([record("a"), record("  b", host="other"), record("  c")]) == ["a\n  c", "  b"]
    assert join([record("a", k=1), record("  b", k=2), record("  c", k=2)]) == ["a", "  b\n  c"]


def test_the_first_line_says_what_the_record_is() -> None:
    first = record("a", 7)._replace(severity=2, timestamp=NOW - WINDOW)
    joiner = Joiner(WINDOW)
    joiner.feed([first, record("\tat x.Y(Z)", 7)], NOW)
    assert joiner.flush() == [first._replace(message="a\n\tat x.Y(Z)")]


def test_the_bytes_of_all_lines_are_kept_where_one_was_cleaned() -> None:
    joiner = Joiner(WINDOW)
    joiner.feed([record("a"), record("  \ufffd", raw=b"  \xff")], NOW)
    assert joiner.flush()[0].raw == b"a\n  \xff"


def test_what_waited_for_the_window_is_let_go() -> None:
    joiner = Joiner(WINDOW)
    assert joiner.feed([record("a", 1)], NOW) == []
    assert joiner.feed([record("b", 2)], NOW + WINDOW / 2) == []
    assert joiner.expire(NOW + WINDOW / 2) == []
    assert [each.message for each in joiner.expire(NOW + WINDOW)] == ["a"]
    assert [each.message for each in joiner.feed([record("  c", 1)], NOW + 2 * WINDOW)] == ["b"]
    assert (len(joiner), [each.message for each in joiner.flush()], len(joiner)) == (1, ["  c"], 0)


def test_lines_size_and_number_are_bounded() -> None:
    many = [record("a")] + [record("  b")] * 9
    joiner = Joiner(WINDOW, max_lines=4)
    assert [each.message.count("\n") + 1 for each in joiner.feed(many, NOW) + joiner.flush()] == [4, 4, 2]
    joiner = Joiner(WINDOW, max_size=10)
    assert max(len(each.message) for each in joiner.feed(many, NOW) + joiner.flush()) <= 10
    joiner = Joiner(WINDOW, max_open=3)
    assert [each.message for each in joiner.feed([record(str(n), n) for n in range(5)], NOW)] == ["0", "1"]
    assert len(joiner) == 3


said = st.sampled_from([*PYTHON.split("\n"), *GO.split("\n"), *JAVA.split("\n"), *NET.split("\n"), "", " ", "plain"])


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(said | st.text(max_size=9), st.sampled_from([None, 1, 2]), st.integers(0, 700)), max_size=40),
    st.integers(1, 5),
)
def test_every_line_comes_out_once_and_in_the_order_of_its_process(
    came: list[tuple[str, int | None, int]], max_lines: int
) -> None:
    joiner, now, out = Joiner(WINDOW, max_lines, 60, 2), NOW, []
    for line, procid, milliseconds in came:
        now += timedelta(milliseconds=milliseconds)
        out += joiner.feed([record(line, procid)], now)
    out += joiner.flush()
    for procid in (None, 1, 2):
        said = [each.message for each in out if each.attributes == record("", procid).attributes]
        assert "\n".join(said) == "\n".join(line for line, by, _ in came if by == procid)
