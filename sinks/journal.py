"""The journal: flushes on disk, in order, while PostgreSQL does not take them.

Files that are only appended to (`segments.py` has their format), fsynced before anything is acknowledged. Each start of
the program begins a new file. A file is deleted when all its entries are done, and until then they come again after a
restart: what stores them knows by their keys what it has. A damaged file is renamed instead, once its good entries are
done: NAME.damaged is for people to look at.
"""

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from logagg.sinks.segments import ENTRY_BYTES, HEADER_BYTES, MAX_PAYLOAD, Entry, JournalError, Segment, sync_folder

__all__ = ["Damage", "Entry", "Journal", "JournalError", "JournalFull"]

SEGMENT_BYTES: Final = 64 << 20
#: A file is at most this part of the cap, so that what is done makes room.
_SHARE: Final = 8
#: Bytes of entries that are given out behind the first.
_SMALL: Final = 1 << 20
#: Of the process, and passing: they say nothing of the file.
_PASSING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class JournalFull(JournalError):
    """The cap is reached; room comes with entries that are done."""


class Damage(NamedTuple):
    """A file of which something was not replayed, and is not deleted."""

    path: Path
    reason: str


class _Head(NamedTuple):
    """The entry that `first` gave out."""

    key: bytes
    records: int
    end: int


class Journal:
    """Entries in a folder, first in, first out. All methods block; any thread may call them.

    Numbers are for metrics, and can be read while another thread waits for the disk.
    """

    def __init__(self, folder: Path, max_bytes: int, segment_bytes: int, lock: int) -> None:
        """See `open`."""
        self.folder = folder
        self.max_bytes = max_bytes
        #: Bytes of files whose entries are not all done.
        self.bytes = 0
        #: Entries that are not done, and records in them.
        self.entries = 0
        self.records = 0
        #: When the first of them was appended, in seconds of Unix time, as `first` last saw it; None without entries.
        self.oldest: float | None = None
        #: Torn tails that were cut when the journal was opened, and their bytes: never acknowledged.
        self.cut_tails = 0
        self.cut_bytes = 0
        #: Records that were not replayed and will not be by this process, as far as that can be known.
        self.lost_records = 0
        self._segment_bytes = min(segment_bytes, max_bytes // _SHARE)
        self._lock_fd: int | None = lock
        self._lock = threading.Lock()
        #: In the order of their entries.
        self._segments: list[Segment] = []
        #: The last of them, when it is written to.
        self._active: Segment | None = None
        self._number = 0
        #: The entries that `first` and `following` gave out.
        self._heads: deque[_Head] = deque()
        self._aside: list[Damage] = []

    @classmethod
    def open(cls, folder: Path, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> "Journal":
        """Open the journal in a folder, which is made if it is not there, for this process alone.

        Raises JournalError when another process has it, a file is of a newer version, or the system refuses.
        """
        try:
            _make(folder)
            journal = cls(folder, max_bytes, segment_bytes, _locked(folder))
        except OSError as error:
            raise _error(folder, error) from error
        try:
            journal._load()
        except OSError as error:
            journal.close()
            raise _error(folder, error) from error
        except BaseException:
            journal.close()
            raise
        return journal

    @property
    def damaged(self) -> list[Damage]:
        """Damaged files: those in use, those set aside, also by earlier runs, and those that cannot be opened."""
        return self._aside + [Damage(each.path, each.damage) for each in self._segments.copy() if each.damage]

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries; they are durable when this returns, none of them is there when it raises.

        Raises JournalFull when the cap leaves no room, JournalError when the system refuses.
        """
        for entry in entries:
            if len(entry.key) != 16 or len(entry.payload) > MAX_PAYLOAD:
                raise ValueError(f"key of {len(entry.key)} bytes, payload of {len(entry.payload)}: 16, {MAX_PAYLOAD}")
        size = sum(ENTRY_BYTES + len(entry.payload) for entry in entries)
        with self._lock:
            self._check_open()
            if not entries:
                return
            segment = self._writable(size)
            before, now = segment.size, time.time()
            try:
                segment.append(entries, now)
            except OSError as error:
                self._abandon(segment)
                raise _error(segment.path, error) from error
            except BaseException:
                self._abandon(segment)
                raise
            self.bytes += segment.size - before
            self.entries += len(entries)
            self.records += sum(entry.records for entry in entries)
            self.oldest = now if self.oldest is None else self.oldest

    def first(self) -> Entry | None:
        """Return the oldest entry that is not done, read from disk and checked; None when there is none.

        Raises JournalError for trouble that passes, or when a file cannot be deleted; call it again later.
        """
        with self._lock:
            self._check_open()
            while self._segments:
                segment = self._segments[0]
                if not self._opened(segment):
                    continue
                found = segment.find(segment.place)
                segment.note(segment.place, found.start if found else segment.size)
                if found:
                    segment.place = found.start
                    self._heads = deque([_Head(found.entry.key, found.entry.records, found.end)])
                    self.oldest = found.received
                    return found.entry
                self._retire(segment)
            return None

    def following(self, most: int) -> list[Entry]:
        """Return the entries right behind the one that `first` returned: small ones, of at most `most` records."""
        with self._lock:
            self._check_open()
            segment, entries = self._segments[0] if self._segments else None, []
            room = _SMALL
            while segment and self._heads and (found := segment.find(place := self._heads[-1].end)):
                most, room = most - found.entry.records, room - len(found.entry.payload)
                if found.start != place or most < 0 or room < 0:
                    break
                self._heads.append(_Head(found.entry.key, found.entry.records, found.end))
                entries.append(found.entry)
            return entries

    def done(self, entry: Entry) -> None:
        """Say that the first of the entries given out is stored: the next one follows it. Saying so twice does nothing.

        Raises JournalError when its file cannot be deleted; the entry is done all the same, until a restart.
        """
        with self._lock:
            self._check_open()
            segment = self._segments[0] if self._segments else None
            if segment is None or not self._heads or self._heads[0].key != entry.key:
                return
            head = self._heads.popleft()
            segment.place = head.end
            segment.entries -= 1
            segment.records -= head.records
            self.entries -= 1
            self.records -= head.records
            if segment.place == segment.size:
                self._retire(segment)

    def refuse(self, entry: Entry, reason: str) -> None:
        """Say that the entry which `first` returned can never be stored: its file is kept, the next one follows it."""
        with self._lock:
            segment = self._segments[0] if self._segments else None
            if self._heads and segment is not None and self._heads[0].key == entry.key:
                segment.damage = segment.damage or reason
                self.lost_records += entry.records
        self.done(entry)

    def close(self) -> None:
        """Leave what waits to the next process that opens the journal."""
        with self._lock:
            for segment in self._segments:
                segment.close()
            if self._lock_fd is not None:
                fd, self._lock_fd = self._lock_fd, None
                os.close(fd)

    def _check_open(self) -> None:
        if self._lock_fd is None:
            raise JournalError(f"{self.folder}: the journal is closed")

    def _load(self) -> None:
        paths = sorted(self.folder.iterdir())
        self._aside = [Damage(path, "set aside before") for path in paths if path.suffix == ".damaged"]
        segments = []
        for path in paths:
            if path.suffix == ".journal":
                try:
                    segments.append(Segment(path))
                except ValueError as error:
                    self._aside.append(Damage(path, str(error)))
        for segment in segments:
            self._number = segment.number
            self._take(segment, last=segment is segments[-1])

    def _take(self, segment: Segment, *, last: bool) -> None:
        try:
            cut, lost = segment.load(last=last)
        except OSError as error:
            self._unreadable(segment, error)
            return
        finally:
            segment.close()
        self.cut_tails += bool(cut)
        self.cut_bytes += cut
        self.lost_records += lost
        self._segments.append(segment)
        self.bytes += segment.size
        self.entries += segment.entries
        self.records += segment.records
        self.oldest = segment.received if self.oldest is None else self.oldest
        if not segment.entries:
            self._retire(segment)

    def _opened(self, segment: Segment) -> bool:
        """Have the file open; forget it, and say so, if that cannot be."""
        try:
            segment.open()
        except OSError as error:
            self._unreadable(segment, error)
            self._forget(segment)
            return False
        return True

    def _unreadable(self, segment: Segment, error: OSError) -> None:
        if error.errno in _PASSING:
            raise _error(segment.path, error) from error
        self._aside.append(Damage(segment.path, error.strerror or str(error)))

    def _writable(self, size: int) -> Segment:
        """Return the file that takes `size` more bytes, a new one if need be."""
        segment = self._active if self._active and self._active.size + size <= self._segment_bytes else None
        needed = size if segment else HEADER_BYTES + size
        if self.bytes + needed > self.max_bytes:
            raise JournalFull(
                f"{self.folder}: the journal holds {self.bytes} bytes of at most {self.max_bytes}, {needed} do not fit"
            )
        if segment:
            return segment
        if self._active:
            self._active.close()
            self._active = None
        try:
            segment = Segment.create(self.folder, self._number + 1)
        except OSError as error:
            raise _error(self.folder, error) from error
        self._number += 1
        self._active = segment
        self._segments.append(segment)
        return segment

    def _abandon(self, segment: Segment) -> None:
        """Write to this file no more."""
        self._active = None
        if segment.size == 0:
            self._segments.remove(segment)
            segment.close()
            with contextlib.suppress(OSError):  # an empty file does no harm
                segment.path.unlink()

    def _retire(self, segment: Segment) -> None:
        """Delete a file with nothing in it that can be replayed, or set it aside."""
        self._forget(segment)
        try:
            if segment.damage:
                segment.set_aside()
            else:
                segment.remove()
        except OSError as error:
            raise _error(segment.path, error) from error
        finally:
            if segment.damage:
                self._aside.append(Damage(segment.path, segment.damage))

    def _forget(self, segment: Segment) -> None:
        """Take a file out of the books; entries that were counted and are not done are lost."""
        self._segments.remove(segment)
        self._active = None if segment is self._active else self._active
        self._heads.clear()
        self.bytes -= segment.size
        self.entries -= segment.entries
        self.records -= segment.records
        self.lost_records += segment.records
        if not self._segments:
            self.oldest = None


def _make(folder: Path) -> None:
    """Make a folder, and those above it, durably."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)


def _locked(folder: Path) -> int:
    """Return a descriptor that holds the lock of a folder; the kernel lets it go with the process."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.read(fd, 20).decode(errors="replace").strip()
        os.close(fd)
        raise JournalError(f"{folder}: {f'process {pid}' if pid else 'another process'} has this journal") from error
    except BaseException:
        os.close(fd)
        raise
    with contextlib.suppress(OSError):  # the lock is what counts, and the disk may be full
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _error(path: Path, error: OSError) -> JournalError:
    return JournalError(f"{path}: {error.strerror or error}")
