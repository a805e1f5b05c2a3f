"""The journal: what it says is durable comes back, in order, after every trouble that a disk or a crash makes."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logagg.sinks.journal import Entry, Journal, JournalError, JournalFull

MIB = 1 << 20


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, if there is one."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:  # noqa: S108 - not a file
        yield Path(name) / "journal"


def entry(number: int, size: int = 100) -> Entry:
    return Entry(number.to_bytes(16, "big"), number + 1, bytes([number % 256]) * size)


def opened(folder: Path, max_bytes: int = 64 * MIB, segment_bytes: int = 1000) -> closing[Journal]:
    return closing(Journal.open(folder, max_bytes, segment_bytes))


def drained(journal: Journal) -> list[Entry]:
    entries = []
    while (found := journal.first()) is not None:
        entries.append(found)
        journal.done(found)
    return entries


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != "lock")


def filled(folder: Path, entries: int = 30) -> list[Path]:
    """Leave entries to the next one who opens the journal, some in a file."""
    with opened(folder) as journal:
        for number in range(entries):
            journal.append([entry(number)])
    return files(folder)


def changed(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_entries_come_back_in_order_and_leave_nothing(folder: Path) -> None:
    entries = [entry(number) for number in range(30)]
    before = time.time()
    with opened(folder) as journal:
        assert journal.first() is None
        journal.append([])
        journal.append(entries[:9])
        for each in entries[9:]:
            journal.append([each])
        assert (journal.entries, journal.records) == (30, sum(each.records for each in entries))
        assert journal.bytes == sum(path.stat().st_size for path in files(folder))
        assert journal.oldest is not None
        assert before <= journal.oldest <= time.time()
        assert len(files(folder)) > 3
        assert journal.first() == journal.first() == entries[0]
        assert drained(journal) == entries
        assert [journal.entries, journal.records, journal.bytes, journal.oldest] == [0, 0, 0, None]
        assert not files(folder)


def test_only_the_owner_can_read_it(folder: Path) -> None:
    filled(folder / "below")
    assert {path.stat().st_mode & 0o777 for path in (folder, folder / "below")} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in (folder / "below").iterdir()} == {0o600}


def test_what_is_not_done_comes_again_after_a_restart(folder: Path) -> None:
    filled(folder)
    with opened(folder) as journal:
        assert (journal.entries, journal.records) == (30, sum(range(31)))
        oldest = journal.oldest
        for number in range(10):
            assert journal.first() == entry(number)
            journal.done(entry(number))
        assert oldest is not None
        assert journal.oldest is not None
        assert oldest <= journal.oldest
        journal.append([entry(30)])
    with opened(folder) as journal:
        again = drained(journal)
        assert again == [entry(number) for number in range(31)][-len(again) :]
        assert 21 <= len(again) <= 21 + 6


def test_done_counts_only_for_the_first_and_only_once(folder: Path) -> None:
    with opened(folder) as journal:
        journal.append([entry(1), entry(2)])
        journal.done(entry(1))
        assert journal.first() == entry(1)
        journal.done(entry(2))
        assert journal.first() == entry(1)
        journal.done(entry(1))
        journal.done(entry(1))
        assert journal.entries == 1
        assert journal.first() == entry(2)
        journal.done(entry(2))
        assert not files(folder)


def test_an_entry_larger_than_a_file_has_one_of_its_own(folder: Path) -> None:
    with opened(folder) as journal:
        for number, size in enumerate((10, 5000, 10)):
            journal.append([entry(number, size)])
        assert len(files(folder)) == 3
        assert drained(journal) == [entry(0, 10), entry(1, 5000), entry(2, 10)]


def test_a_full_journal_refuses_with_numbers_and_takes_more_when_there_is_room(folder: Path) -> None:
    with opened(folder, max_bytes=10_000, segment_bytes=MIB) as journal:
        taken: list[Entry] = []
        while journal.bytes + 165 <= 10_000:
            taken.append(entry(len(taken)))
            journal.append(taken[-1:])
        with pytest.raises(JournalFull) as full:
            journal.append([entry(1000)])
        assert str(full.value) == f"{folder}: the journal holds {journal.bytes} bytes of at most 10000, 149 do not fit"
        assert sum(path.stat().st_size for path in files(folder)) <= 10_000
        for each in taken[:10]:
            assert journal.first() == each
            journal.done(each)
        journal.append([entry(1000)])
        assert drained(journal) == [*taken[10:], entry(1000)]


def test_a_key_or_payload_that_does_not_fit_the_format_is_an_error(folder: Path) -> None:
    with opened(folder) as journal, pytest.raises(ValueError, match="key of 3 bytes"):
        journal.append([Entry(b"abc", 1, b"")])


def test_one_process_at_a_time(folder: Path) -> None:
    command = "import pathlib, sys; from logagg.sinks.journal import *; Journal.open(pathlib.Path(sys.argv[1]), 1000)"
    with opened(folder):
        with pytest.raises(JournalError, match=f"{folder}: process {os.getpid()} has this journal"):
            Journal.open(folder, MIB)
        done = subprocess.run([sys.executable, "-c", command, folder], stderr=subprocess.PIPE, text=True, check=False)
        assert f"process {os.getpid()} has this journal" in done.stderr
        (folder / "lock").write_bytes(b"")  # the disk was full
        with pytest.raises(JournalError, match=f"{folder}: another process has this journal"):
            Journal.open(folder, MIB)
    with opened(folder) as journal:
        assert journal.first() is None


def test_a_closed_journal_takes_and_gives_nothing(folder: Path) -> None:
    with opened(folder) as journal:
        journal.append([entry(1)])
    journal.close()
    for call in (journal.first, lambda: journal.append([entry(1)]), lambda: journal.done(entry(1))):
        with pytest.raises(JournalError, match="the journal is closed"):
            call()


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=rf"{tmp_path}/file/journal: File exists"):
        Journal.open(tmp_path / "file" / "journal", MIB)


def test_files_that_cannot_be_opened_are_reported_and_do_not_block(folder: Path) -> None:
    paths = filled(folder)
    paths[1].unlink()
    paths[1].symlink_to("nowhere")
    (folder / "copy.journal").touch()
    with opened(folder) as journal:
        assert {path for path, _ in journal.damaged} == {paths[1], folder / "copy.journal"}
        paths[2].unlink()  # while the journal is open
        assert drained(journal) == [entry(number) for number in range(30) if number not in range(6, 18)]
        assert (paths[2], "No such file or directory") in journal.damaged
        assert journal.lost_records == sum(range(13, 19))
    assert files(folder) == [paths[1], folder / "copy.journal"]


def test_a_newer_version_stops_the_start_and_stays(folder: Path) -> None:
    paths = filled(folder)
    header = b"logagg J" + (2).to_bytes(4, "little")
    newer = header + crc32(header).to_bytes(4, "little") + b"more"
    paths[1].write_bytes(newer)
    for _ in range(2):
        with pytest.raises(JournalError, match=f"{paths[1].name}: a journal of version 2"):
            Journal.open(folder, MIB)
    assert files(folder) == paths
    assert paths[1].read_bytes() == newer


def failing(*_: object) -> int:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("calls", [["fdatasync"], ["pwrite"], ["fdatasync", "ftruncate", "fsync"]])
@pytest.mark.parametrize("before", [0, 2])
def test_a_failed_append_leaves_nothing_and_another_file_is_begun(
    folder: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str], before: int
) -> None:
    kept = [entry(number) for number in range(before)]
    with opened(folder, segment_bytes=MIB) as journal:
        journal.append(kept)
        old, size = files(folder), journal.bytes
        with monkeypatch.context() as patch:
            for call in calls:
                patch.setattr(os, call, failing)
            with pytest.raises(JournalError, match=r"\.journal: Input/output error"):
                journal.append([entry(50), entry(51)])
        assert files(folder) == old
        assert (journal.bytes, journal.entries) == (size, before)
        assert "ftruncate" in calls or sum(path.stat().st_size for path in old) == size
        journal.append([entry(99)])
        assert len(files(folder)) == len(old) + 1
        assert drained(journal) == [*kept, entry(99)]
        assert not files(folder)


def test_without_its_name_on_disk_a_file_is_not_durable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            with pytest.raises(JournalError, match=r"\.journal: Input/output error"):
                journal.append([entry(1)])
        assert (files(folder), journal.first(), journal.bytes) == ([], None, 0)


def test_a_write_cut_short_is_taken_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[[int, bytes, int], int] = os.pwrite
    answers = iter([10, 0])
    with opened(folder) as journal:
        journal.append([entry(1)])
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[: next(answers)], at))
            with pytest.raises(JournalError, match="No space left on device"):
                journal.append([entry(2)])
        assert files(folder)[0].stat().st_size == journal.bytes == 165
        assert drained(journal) == [entry(1)]


def test_too_many_open_files_pass(folder: Path) -> None:
    filled(folder)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with opened(folder) as journal:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            with pytest.raises(JournalError, match="Too many open files"):
                journal.first()
            with pytest.raises(JournalError, match="Too many open files"):
                journal.append([entry(1)])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert drained(journal) == [entry(number) for number in range(30)]
        assert journal.damaged == []


#: Python ignores SIGXFSZ: a write beyond the limit is cut short, and the next one an error, as on a full disk.
LIMITED = """
import resource, sys
from itertools import count
from pathlib import Path
from logagg.sinks.journal import Entry, Journal, JournalError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
journal = Journal.open(Path(sys.argv[1]), 1 << 30)
for number in range(20):
    try:
        journal.append([Entry(number.to_bytes(16, "big"), 1, bytes([number]) * 3000)])
    except JournalError as error:
        assert "File too large" in str(error), error
    else:
        print(number)
try:
    journal.append([Entry(bytes(16), 1, bytes(20_000))])
except JournalError:
    print("refused")
"""


def test_a_disk_that_is_full_refuses_and_loses_nothing(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, folder], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    *taken, refused = done.stdout.split()
    assert refused == "refused"
    assert 15 <= len(taken) < 20
    with opened(folder) as journal:
        assert [found.key for found in drained(journal)] == [int(n).to_bytes(16, "big") for n in taken]
        assert (journal.cut_tails, journal.damaged) == (0, [])


APPENDING = """
import sys
from pathlib import Path
from logagg.sinks.journal import Entry, Journal
journal = Journal.open(Path(sys.argv[1]), 1 << 30, 100_000)
number = int(sys.argv[2])
def entry(n):
    return Entry(n.to_bytes(16, "big"), 1, bytes([n % 256]) * (n * 977 % 30_000))
while True:
    journal.append([entry(number), entry(number + 1)])
    number += 2
    print(number, flush=True)
"""


def test_what_a_killed_process_said_is_durable_is_there(tmp_path: Path) -> None:
    folder, number = tmp_path / "journal", 0
    for lines in (1, 7, 20):
        command = [sys.executable, "-c", APPENDING, str(folder), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            said = [child.stdout.readline() for _ in range(lines)]
            child.kill()
            said += child.stdout.readlines()
        durable = int(said[-1])
        with opened(folder) as journal:
            number = journal.entries
            assert durable <= number <= durable + 2
            assert journal.damaged == []
    with opened(folder) as journal:
        assert drained(journal) == [
            Entry(n.to_bytes(16, "big"), 1, bytes([n % 256]) * (n * 977 % 30_000)) for n in range(number)
        ]


def append_each(journal: Journal, entries: list[Entry]) -> None:
    for each in entries:
        journal.append([each])


def test_many_threads_append_while_one_replays(folder: Path) -> None:
    mine = [[entry(thread * 100 + n) for n in range(50)] for thread in range(4)]
    found: list[Entry] = []
    with opened(folder) as journal, ThreadPoolExecutor() as threads:
        running = [threads.submit(append_each, journal, each) for each in mine]
        while not all(one.done() for one in running) or journal.entries:
            found += drained(journal)
        assert (journal.entries, journal.bytes) == (0, 0)
    assert [[each for each in found if each in of_thread] for of_thread in mine] == mine
    assert len(found) == 200


steps = st.lists(
    st.one_of(st.lists(st.integers(0, 900), max_size=4), st.sampled_from(["done", "done", "restart"])), max_size=30
)


@given(steps)
@settings(max_examples=60, deadline=None)
def test_it_is_a_queue_whatever_the_steps(steps: list[list[int] | str]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:  # noqa: S108
        journal, numbers = Journal.open(Path(name), 64 * MIB, 1000), count()
        waiting: deque[Entry] = deque()
        try:
            for step in steps:
                if isinstance(step, list):
                    entries = [entry(next(numbers), size) for size in step]
                    journal.append(entries)
                    waiting += entries
                elif step == "done" and waiting:
                    assert journal.first() == waiting[0]
                    journal.done(waiting.popleft())
                elif step == "restart":
                    journal.close()
                    journal = Journal.open(Path(name), 64 * MIB, 1000)
                    while journal.entries > len(waiting):  # done, and in a file with others
                        again = journal.first()
                        assert again is not None
                        journal.done(again)
                assert (journal.entries, journal.records) == (len(waiting), sum(each.records for each in waiting))
            assert drained(journal) == list(waiting)
            assert not [path for path in Path(name).iterdir() if path.name != "lock"]
        finally:
            journal.close()
