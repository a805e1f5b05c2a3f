"""What one request to `/upload` brings is cut into batches, so that what comes again is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.protocols import journald
from logagg.protocols.journald import MOST_BYTES, JournalDecoder, key_of
from logagg.protocols.record import Decoded

if TYPE_CHECKING:
    from logagg.tests.test_journald import (
        MAX,
        ORIGIN,
        answer,
        cursor,
        entry,
        feed,
        messages,
        rejects,
        store,
        stream,
        text,
    )
else:
    from test_journald import MAX, ORIGIN, answer, cursor, entry, feed, messages, rejects, store, stream, text


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "ONE_OF", 20)


@pytest.mark.usefixtures("_small")
def test_batches_end_at_the_same_entries_wherever_a_request_begins() -> None:
    first, later = feed(stream(0, 500), 700), feed(stream(137, 500), 64)
    assert 10 < len(first) < 60
    ends = [batch.final for batch in first]
    assert [batch.final for batch in later] == ends[-len(later) :]
    assert [batch.key for batch in later[1:]] == [batch.key for batch in first][-len(later) + 1 :]
    assert len({batch.key for batch in first}) == len(first)
    assert (first[0].first, first[-1].final) == (cursor(0), cursor(499))


FATES = st.sampled_from(["heard", "restarted", "not heard", "broken"])


@pytest.mark.usefixtures("_small")
@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), FATES, st.floats(0, 1)), min_size=1, max_size=8),
    st.booleans(),
)
def test_requests_that_come_again_otherwise_are_stored_once(
    steps: list[tuple[int, int, str, float]], always: bool
) -> None:
    """A sender goes on behind the last answer that it heard; whenever it starts, or if nothing is new then, before."""
    keys: set[str] = set()
    rows: list[str] = []
    heard = written = 0
    restarted = False
    for before, meanwhile, fate, cut in steps:
        written += before
        start = max(heard - (restarted and (always or heard == written)), 0)
        written += meanwhile
        data = stream(start, written)
        if fate == "broken":
            store(JournalDecoder(MAX).feed(data[: int(cut * len(data))], ORIGIN), keys, rows)
        else:
            batches = feed(data)
            store(batches, keys, rows)
            answer(batches, keys)
            heard = written if fate in {"heard", "restarted"} else heard
        restarted = fate != "heard"
    store(feed(stream(heard, written)), keys, rows)
    assert rows == [f"message {number}" for number in range(written)]


def test_large_entries_end_batches_sooner() -> None:
    """The end of a batch that is too large would depend on where it began."""
    large = [entry(number, "x" * 30_000) for number in range(600)]
    first, later = feed(b"".join(large), limit=1 << 20), feed(b"".join(large[1:]), limit=1 << 20)
    assert [batch.final for batch in first] == [batch.final for batch in later]
    assert max(batch.size for batch in first) < MOST_BYTES


def test_what_is_left_of_a_batch() -> None:
    (batch,) = feed(entry(1) + b"no field\n\n" + entry(2) + entry(3))
    assert batch.rest([]) is batch
    whole = batch.rest([batch.key or ""])
    assert (whole.decoded, whole.size) == (Decoded([], []), 0)
    head = next(key for key, part in batch.forms.items() if part == (0, 2))
    rest = batch.rest([head])
    assert (messages([rest]), len(rejects([rest])), rest.key) == (["message 3"], 1, batch.key)
    assert rest.size == batch.size // 3
    rest = batch.rest([key_of(cursor(1))])
    assert (messages([rest]), rest.key) == (["message 2", "message 3"], batch.second)
    assert batch.rest([key_of(cursor(1)), batch.second or ""]).decoded == Decoded([], [])


@pytest.mark.usefixtures("_small")
def test_a_request_that_breaks_off_leaves_whole_batches_that_come_again() -> None:
    keys: set[str] = set()
    rows: list[str] = []
    store(JournalDecoder(MAX).feed(stream(0, 300)[:-20], ORIGIN), keys, rows)  # and no close
    assert 0 < len(rows) < 300
    store(feed(stream(0, 400)), keys, rows)
    assert rows == [f"message {number}" for number in range(400)]


def test_an_entry_without_a_cursor_has_no_key() -> None:
    (batch,) = feed(entry(1) + text(MESSAGE="m") + entry(2))
    assert (batch.key, batch.second, batch.forms, batch.first, batch.last) == (None, None, {}, cursor(1), False)
    (batch,) = feed(entry(1) + b"bad\n\n")
    assert dict(batch.forms) == {batch.key: (0, 1)}


def test_a_batch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journald, "MOST_ENTRIES", 10)
    assert max(len(batch.decoded.records) for batch in feed(stream(0, 99))) == 10
    monkeypatch.setattr(journald, "MOST_BYTES", 1000)
    assert max(batch.size for batch in feed(stream(0, 99))) < 1000 + len(entry(99))
    assert sum(batch.size for batch in feed(stream(0, 99))) == len(stream(0, 99))


def test_what_has_waited_long_enough_is_given_out() -> None:
    decoder = JournalDecoder(MAX)
    data = stream(0, 3)
    assert decoder.feed(data[:-5], ORIGIN) == []
    assert messages(decoder.flush()) == ["message 0", "message 1"]
    assert decoder.flush() == []
    assert messages(decoder.feed(data[-5:], ORIGIN) + decoder.close(ORIGIN)) == ["message 2"]
