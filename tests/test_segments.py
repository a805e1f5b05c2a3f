"""The files of the journal: what comes back of them, whatever happens to their bytes."""

from __future__ import annotations

import os
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.sinks.segments import ENTRY_BYTES, HEADER_BYTES, Entry, JournalError, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logagg.tests.test_journal import MIB, changed, drained, entry, files, filled, opened
else:
    from test_journal import MIB, changed, drained, entry, files, filled, opened

ENTRIES = [Entry(bytes([n]) * 16, n + 1, payload) for n, payload in enumerate([b"a", b"", b"ccc", b"\0\0", b"eeeee"])]
#: Where each entry ends, and the next one starts.
STARTS = list(accumulate((ENTRY_BYTES + len(entry.payload) for entry in ENTRIES), initial=HEADER_BYTES))
ENDS = STARTS[1:]
SIZE = ENDS[-1]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, if there is one: it is the bytes that matter here."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:  # noqa: S108 - not a file
        yield Path(name)


def written(folder: Path, entries: list[Entry] = ENTRIES) -> Path:
    segment = Segment.create(folder, 1)
    segment.append(entries, 12.5)
    segment.close()
    return segment.path


def loaded(path: Path, *, last: bool = True) -> tuple[Segment, int, list[Entry]]:
    """Return a file as opened, the bytes cut, and what it gives."""
    segment = Segment(path)
    cut, _ = segment.load(last=last)
    entries, place = [], segment.place
    while found := segment.find(place):
        entries.append(found.entry)
        place = found.end
    segment.close()
    return segment, cut, entries


def intact(good: bytes, data: bytes | bytearray) -> list[Entry]:
    """Return the entries of which all but the last byte, which says nothing, is in the damaged data."""
    return [entry for entry, start, end in zip(ENTRIES, STARTS, ENDS, strict=False) if good[start : end - 1] in data]


def test_entries_come_back_with_their_time(folder: Path) -> None:
    path = written(folder)
    segment, cut, entries = loaded(path)
    assert (entries, cut, segment.damage) == (ENTRIES, 0, None)
    assert (segment.entries, segment.records, segment.received, segment.size) == (5, 15, 12.5, SIZE)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_costs_at_most_the_entry_it_is_in(folder: Path, flip: int, last: bool) -> None:
    path = written(folder)
    good = path.read_bytes()
    for place in range(SIZE):
        data = bytearray(good)
        data[place] ^= flip
        path.write_bytes(data)
        segment, cut, entries = loaded(path, last=last)
        assert entries == intact(good, data), place
        assert len(entries) >= 4, place
        assert cut == 0, place
        assert path.read_bytes() == data, place
        if last and (len(entries) == 4 or place < HEADER_BYTES):
            assert segment.damage, place


@pytest.mark.parametrize("last", [True, False])
def test_a_file_cut_anywhere_gives_the_whole_entries_before(folder: Path, last: bool) -> None:
    path = written(folder)
    good = path.read_bytes()
    for size in range(SIZE + 1):
        path.write_bytes(good[:size])
        segment, cut, entries = loaded(path, last=last)
        whole = [end for end in ENDS if end <= size]
        assert entries == ENTRIES[: len(whole)], size
        kept = whole[-1] if whole else HEADER_BYTES if size >= HEADER_BYTES else 0
        assert cut == (size - kept if last else 0), size
        assert bool(segment.damage) == (not last and size not in (0, HEADER_BYTES, *ENDS)), size
        assert path.stat().st_size == size - cut, size


def test_zeros_behind_any_cut_are_torn_too(folder: Path) -> None:
    path = written(folder)
    good = path.read_bytes()
    for size in range(SIZE):
        path.write_bytes(good[:size] + bytes(SIZE - size + 5000))
        segment, cut, entries = loaded(path)
        assert (entries, segment.damage) == (intact(good, path.read_bytes()), None), size
        assert path.stat().st_size == SIZE + 5000 - cut, size
        assert cut >= 5000, size


def test_a_hole_before_the_last_byte_may_have_been_acknowledged(folder: Path) -> None:
    entry = Entry(bytes(16), 7, b"x" * 20_000)
    path = written(folder, [*ENTRIES, entry])
    data = bytearray(path.read_bytes())
    data[8192:12288] = bytes(4096)
    path.write_bytes(data)
    segment, cut, entries = loaded(path)
    assert (entries, cut) == (ENTRIES, 0)
    assert segment.damage == f"the entry of 7 records at byte {SIZE} has a wrong checksum"


def test_lost_records_are_counted_where_their_number_can_be_read(folder: Path) -> None:
    path = written(folder)
    data = bytearray(path.read_bytes())
    data[ENDS[2] - 2] ^= 1  # the payload of the third
    path.write_bytes(data)
    segment = Segment(path)
    assert segment.load(last=True) == (0, 3)
    segment.close()


@pytest.mark.parametrize("place", range(0, SIZE - 4, 7))
def test_bytes_too_many_or_too_few_cost_the_entries_they_are_in(folder: Path, place: int) -> None:
    path = written(folder)
    good = path.read_bytes()
    for data in (good[:place] + b"more" + good[place:], good[:place] + good[place + 3 :]):
        path.write_bytes(data)
        _, _, entries = loaded(path, last=False)
        assert entries == intact(good, data)
        assert len(entries) >= 3


damages = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.one_of(st.binary(min_size=1, max_size=80), st.integers(1, 90).map(bytes))),
    min_size=1,
    max_size=3,
)


@given(damages, st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_is_written_over_it_the_rest_comes_back_and_nothing_false(
    damage: list[tuple[int, bytes]], last: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = written(Path(name))
        good = path.read_bytes()
        data = bytearray(good)
        for place, piece in damage:
            data[place : place + len(piece)] = piece
        path.write_bytes(data)
        _, _, entries = loaded(path, last=last)
        assert entries == intact(good, data)


def test_a_sender_cannot_forge_an_entry(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    forged = written(other, [Entry(b"f" * 16, 99, b"forged")]).read_bytes()
    path = written(folder, [Entry(b"h" * 16, 1, forged), *ENTRIES])
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 9] ^= 1  # its length: what follows is searched
    path.write_bytes(data)
    assert loaded(path)[2] == ENTRIES


def test_an_absurd_length_is_not_read(folder: Path) -> None:
    path = written(folder)
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 8 : HEADER_BYTES + 12] = b"\xff" * 4
    head = data[HEADER_BYTES : HEADER_BYTES + 44]
    data[HEADER_BYTES + 44 : HEADER_BYTES + 48] = crc32(head).to_bytes(4, "little")
    path.write_bytes(data)
    segment, _, entries = loaded(path)
    assert entries == ENTRIES[1:]
    assert segment.damage == f"the entry of 1 records at byte {HEADER_BYTES} is cut short"


def test_markers_across_the_pieces_of_a_search_are_found(folder: Path) -> None:
    for more in range(60):
        path = written(folder, [Entry(b"l" * 16, 1, b"x" * ((1 << 16) - 70 + more)), *ENTRIES])
        data = bytearray(path.read_bytes())
        data[HEADER_BYTES] ^= 1
        path.write_bytes(data)
        assert loaded(path)[2] == ENTRIES, more


def test_a_newer_version_is_refused_by_name(folder: Path) -> None:
    path = written(folder)
    header = b"logagg J" + (2).to_bytes(4, "little")
    data = header + crc32(header).to_bytes(4, "little") + path.read_bytes()[HEADER_BYTES:]
    path.write_bytes(data)
    segment = Segment(path)
    with pytest.raises(JournalError, match=rf"{path.name}: a journal of version 2; this program reads version 1"):
        segment.load(last=True)
    segment.close()
    assert path.read_bytes() == data


@pytest.mark.parametrize("bad", range(len(ENTRIES)))
def test_what_the_disk_cannot_read_costs_what_it_holds(folder: Path, monkeypatch: pytest.MonkeyPatch, bad: int) -> None:
    path = written(folder, [entry._replace(payload=bytes([n]) * 70_000) for n, entry in enumerate(ENTRIES)])
    real, size, each = os.pread, path.stat().st_size, ENTRY_BYTES + 70_000
    page = HEADER_BYTES + bad * each + 40_000

    def failing(fd: int, count: int, place: int) -> bytes:
        if place <= page < place + count:
            raise OSError(5, "Input/output error")
        return real(fd, count, place)

    monkeypatch.setattr(os, "pread", failing)
    segment, cut, entries = loaded(path)
    assert [entry.key for entry in entries] == [entry.key for n, entry in enumerate(ENTRIES) if n != bad]
    assert (cut, path.stat().st_size) == (0, size)
    assert segment.damage
    assert segment.damage.endswith("has a wrong checksum (Input/output error)")


def test_a_tail_that_cannot_be_read_is_not_cut(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = written(folder), os.pread

    def failing(fd: int, count: int, place: int) -> bytes:
        if place + count > ENDS[3]:
            raise OSError(5, "Input/output error")
        return real(fd, count, place)

    monkeypatch.setattr(os, "pread", failing)
    segment, cut, entries = loaded(path)
    assert (entries, cut, path.stat().st_size) == (ENTRIES[:4], 0, SIZE)
    assert segment.damage == f"bytes {ENDS[3]} to {SIZE} of {SIZE} are not what was written (Input/output error)"


def test_other_names_are_no_segments() -> None:
    with pytest.raises(ValueError, match="not the name of a segment"):
        Segment(Path("1.journal"))


def test_a_torn_tail_is_cut_and_counted(folder: Path) -> None:
    last = filled(folder)[-1]
    size = last.stat().st_size
    os.truncate(last, size - 1)
    with opened(folder) as journal:
        assert (journal.cut_tails, journal.cut_bytes, journal.damaged) == (1, 148, [])
        assert last.stat().st_size == size - 149
        journal.append([entry(99)])
        assert drained(journal) == [*map(entry, range(29)), entry(99)]


def test_a_file_that_was_only_begun_is_cleared_away(folder: Path) -> None:
    for data in (b"", b"logagg", bytes(5000)):
        filled(folder, 1)
        (folder / "000000000009-0123456789abcdef.journal").write_bytes(data)
        with opened(folder) as journal:
            assert journal.damaged == []
            assert drained(journal) == [entry(0)]
        assert files(folder) == []


def test_a_damaged_file_is_set_aside_and_the_others_are_replayed(folder: Path) -> None:
    paths = filled(folder)
    changed(paths[1], 16 + 149 + 100)  # the second entry of the second file: 7 of 30
    aside = paths[1].with_name(paths[1].name + ".damaged")
    data = paths[1].read_bytes()
    with opened(folder) as journal:
        assert drained(journal) == [entry(number) for number in range(30) if number != 7]
        reason = "the entry of 8 records at byte 165 has a wrong checksum"
        assert journal.damaged == [(aside, reason)]
        assert (journal.lost_records, journal.entries, journal.records, journal.bytes) == (8, 0, 0, 0)
    assert files(folder) == [aside]
    assert aside.read_bytes() == data
    with opened(folder) as journal:
        assert journal.damaged == [(aside, "set aside before")]
        assert drained(journal) == []


def test_damage_that_shows_at_the_start_is_reported_at_the_start(folder: Path) -> None:
    paths = filled(folder)
    changed(paths[0], 3)
    os.truncate(paths[1], 300)
    changed(paths[-1], paths[-1].stat().st_size - 2)
    with opened(folder) as journal:
        assert [path for path, _ in journal.damaged] == [paths[0], paths[1], paths[-1]]
        assert journal.damaged[0].reason == f"bytes 0 to 16 of {paths[0].stat().st_size} are not what was written"
        assert journal.damaged[1].reason == "the entry of 8 records at byte 165 is cut short"
        assert (journal.cut_tails, journal.lost_records) == (0, 8 + 30)
        assert drained(journal) == [entry(n) for n in range(29) if n not in range(7, 12)]
        assert [path.suffix for path in files(folder)] == [".damaged"] * 3
        journal.append([entry(99)])
        assert drained(journal) == [entry(99)]


def test_a_file_of_nothing_but_damage_is_set_aside_at_once(folder: Path) -> None:
    paths = filled(folder)
    paths[0].write_bytes(b"x" * 1000)
    with opened(folder) as journal:
        assert [path.name for path, _ in journal.damaged] == [paths[0].name + ".damaged"]
        assert drained(journal) == [entry(number) for number in range(6, 30)]


def test_damage_of_the_file_that_is_written_to_is_found_when_it_is_read(folder: Path) -> None:
    with opened(folder, segment_bytes=MIB) as journal:
        journal.append([entry(1), entry(2), entry(3)])
        (path,) = files(folder)
        changed(path, path.stat().st_size - 10)
        assert drained(journal) == [entry(1), entry(2)]
        assert journal.lost_records == 4
        assert [each.suffix for each in files(folder)] == [".damaged"]
        journal.append([entry(4)])
        assert drained(journal) == [entry(4)]
