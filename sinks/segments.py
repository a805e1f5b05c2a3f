"""A file of the journal: a header, then entries. Damage costs the entries that it hits, and no others.

The header: MAGIC, version, CRC-32 of both. An entry, numbers in little-endian order:

    marker      8 bytes, drawn at random for each file and part of its name
    length      4 bytes, of the payload
    records     4 bytes
    received    8 bytes, a float: when it was appended, in seconds of Unix time
    key         16 bytes
    checksum    4 bytes, CRC-32 of the payload
    checksum    4 bytes, CRC-32 of all above
    payload
    end         1 byte that is not zero

Where an entry is wrong, the next one is found by its marker. That is random, so that nothing a sender wrote can pass
for an entry, and stands in the name, so that it is not lost with a page of the file.

A torn tail and damage, told apart: an entry is acknowledged once it is on disk, from its first to its last byte, which
is not zero. So the tail of the last file is torn, and cut, if no good entry follows, and that last byte and all behind
it are missing or zeros, as a crash leaves them; where the length cannot be read, the entry is taken for an empty one.
All else may have been acknowledged, and is damage, also what a loss of power left with a hole in its middle.
"""

import contextlib
import errno
import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

MAGIC: Final = b"logagg J"
VERSION: Final = 1
#: The longest payload: one call reads it (Linux reads at most 2 GiB at once).
MAX_PAYLOAD: Final = 1 << 30

_HEADER: Final = struct.Struct("<8sI")
_HEAD: Final = struct.Struct("<8sIId16sI")
_CRC: Final = struct.Struct("<I")
_END: Final = b"\n"
#: Bytes of a file before its first entry, and of an entry besides its payload.
HEADER_BYTES: Final = _HEADER.size + _CRC.size
_HEAD_BYTES: Final = _HEAD.size + _CRC.size
ENTRY_BYTES: Final = _HEAD_BYTES + len(_END)

_NAME: Final = re.compile(r"(\d{12})-([0-9a-f]{16})\.journal")
#: Searched at once for a marker: what is lost around a page that cannot be read.
_CHUNK: Final = 1 << 16


class JournalError(Exception):
    """The journal cannot do this; the message names the file or folder, and the reason."""


class Entry(NamedTuple):
    """What is appended and replayed as a whole."""

    #: 16 random bytes: what is stored together with them is stored once.
    key: bytes
    records: int
    payload: bytes


class Found(NamedTuple):
    """A good entry, and where it stands in the file."""

    start: int
    end: int
    received: float
    #: Without its payload, if that was not asked for.
    entry: Entry


class _Head(NamedTuple):
    end: int
    length: int
    records: int
    received: float
    key: bytes
    checksum: int


class Segment:
    """One file, for one thread at a time. Methods raise OSError; what cannot be read is damage, no error."""

    def __init__(self, path: Path) -> None:
        """Take the file of this name. Raises ValueError for a name that is not a segment's."""
        match = _NAME.fullmatch(path.name)
        if not match:
            raise ValueError(f"{path}: not the name of a segment")
        self.path = path
        self.number = int(match[1])
        #: Bytes that are durable.
        self.size = 0
        #: Where the first entry begins that is not done.
        self.place = 0
        #: Entries that are not done, and records in them.
        self.entries = 0
        self.records = 0
        #: When the first of them was appended.
        self.received: float | None = None
        #: What is wrong with the file: of several things the first.
        self.damage: str | None = None
        self._marker = bytes.fromhex(match[2])
        self._fd: int | None = None
        self._trouble: OSError | None = None

    @classmethod
    def create(cls, folder: Path, number: int) -> "Segment":
        """Begin a new file."""
        segment = cls(folder / f"{number:012}-{os.urandom(8).hex()}.journal")
        segment._fd = os.open(segment.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        return segment

    def open(self) -> int:
        """Have the file open, for reading if it was not, and return its descriptor."""
        if self._fd is None:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
        return self._fd

    def close(self) -> None:
        """Close the file; it is opened again when it is read."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def append(self, entries: Iterable[Entry], now: float) -> None:
        """Write entries; they are durable when this returns. When it raises, the file is as before, and not for more.

        After fsync failed, Linux takes pages for clean that are not on disk, and the next fsync succeeds ("Can
        Applications Recover from fsync Failures?", USENIX ATC 2020). fdatasync writes the new size of the file, too;
        its name is durable by fsync of the folder (fsync(2)).
        """
        pieces = [_header()] if self.size == 0 else []
        added = records = 0
        for entry in entries:
            pieces += (self._encode_head(entry, now), entry.payload, _END)
            added += 1
            records += entry.records
        data, fd = b"".join(pieces), self.open()
        try:
            _write(fd, data, self.size)
            os.fdatasync(fd)
            if self.size == 0:
                sync_folder(self.path.parent)
        except BaseException:  # whatever it is, no half of an entry stays
            with contextlib.suppress(OSError):
                os.ftruncate(fd, self.size)
                os.fsync(fd)
            raise
        self.place = self.place or HEADER_BYTES
        self.size += len(data)
        self.entries += added
        self.records += records
        self.received = now if self.received is None else self.received

    def load(self, *, last: bool) -> tuple[int, int]:
        """Count what is in the file; of the last one check all, and cut a torn tail. Return bytes cut, records lost.

        Payloads of others are not read yet, so that a large journal opens at once. Raises JournalError for a newer
        version.
        """
        self.size = os.fstat(self.open()).st_size
        place = self.place = self._after_header()
        lost = 0
        while found := self.find(place, payloads=last):
            lost += self.note(place, found.start)
            self.entries += 1
            self.records += found.entry.records
            self.received = found.received if self.received is None else self.received
            place = found.end
        if place < self.size and last and self._is_torn(place):
            cut, self.size = self.size - place, place
            os.truncate(self.path, place)
            os.fsync(self.open())
            return cut, lost
        return 0, lost + self.note(place, self.size)

    def find(self, place: int, *, payloads: bool = True) -> Found | None:
        """Return the first good entry that begins at `place` or after it."""
        at: int | None = place
        while at is not None:
            head = self._head(at)
            if head and head.end <= self.size:
                payload = self._read(head.length, at + _HEAD_BYTES) if payloads else b""
                if not payloads or (len(payload) == head.length and crc32(payload) == head.checksum):
                    return Found(at, head.end, head.received, Entry(head.key, head.records, payload))
            at = self._search(at + 1)
        return None

    def note(self, start: int, end: int) -> int:
        """Remember that there is no good entry from `start` to `end`. Return the records lost, if that can be read."""
        if start >= end:
            return 0
        head = self._head(start)
        if self.damage is None:
            if head:
                how = "is cut short" if head.end > self.size else "has a wrong checksum"
                self.damage = f"the entry of {head.records} records at byte {start} {how}"
            else:
                self.damage = f"bytes {start} to {end} of {self.size} are not what was written"
            if self._trouble:
                self.damage += f" ({os.strerror(self._trouble.errno or 0)})"
        return head.records if head else 0

    def remove(self) -> None:
        """Delete the file, durably."""
        self.close()
        self.path.unlink()
        sync_folder(self.path.parent)

    def set_aside(self) -> None:
        """Give the file a name that no journal reads, durably."""
        self.close()
        self.path = self.path.rename(self.path.with_name(self.path.name + ".damaged"))
        sync_folder(self.path.parent)

    def _encode_head(self, entry: Entry, now: float) -> bytes:
        length = len(entry.payload)
        head = _HEAD.pack(self._marker, length, entry.records, now, entry.key, crc32(entry.payload))
        return head + _CRC.pack(crc32(head))

    def _head(self, place: int) -> _Head | None:
        head = self._read(_HEAD_BYTES, place)
        if not (len(head) == _HEAD_BYTES and head.startswith(self._marker) and _is_checked(head)):
            return None
        _, length, records, received, key, checksum = _HEAD.unpack_from(head)
        return _Head(place + ENTRY_BYTES + length, length, records, received, key, checksum)

    def _after_header(self) -> int:
        """Return where entries begin: at once, when there is no good header."""
        header = self._read(HEADER_BYTES, 0)
        if not (len(header) == HEADER_BYTES and header.startswith(MAGIC) and _is_checked(header)):
            return 0
        version = _HEADER.unpack_from(header)[1]
        if version != VERSION:
            raise JournalError(f"{self.path}: a journal of version {version}; this program reads version {VERSION}")
        return HEADER_BYTES

    def _is_torn(self, place: int) -> bool:
        head = self._head(place)
        end = head.end if head else place + ENTRY_BYTES
        for at in range(end - len(_END), self.size, _CHUNK):
            piece = self._read(_CHUNK, at)
            if len(piece) < min(_CHUNK, self.size - at) or piece.strip(b"\0"):
                return False
        return True

    def _search(self, place: int) -> int | None:
        for at in range(place, self.size, _CHUNK):
            found = self._read(_CHUNK + len(self._marker) - 1, at).find(self._marker)
            if found >= 0:
                return at + found
        return None

    def _read(self, count: int, place: int) -> bytes:
        """Return what can be read of the durable part, b"" after an error."""
        fd = self.open()
        try:
            return os.pread(fd, max(0, min(count, self.size - place)), place)
        except OSError as error:
            self._trouble = error
            return b""


def sync_folder(folder: Path) -> None:
    """Make durable which names stand in a folder."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _header() -> bytes:
    header = _HEADER.pack(MAGIC, VERSION)
    return header + _CRC.pack(crc32(header))


def _is_checked(head: bytes) -> bool:
    return head.endswith(_CRC.pack(crc32(head[: -_CRC.size])))


def _write(fd: int, data: bytes, place: int) -> None:
    rest = memoryview(data)
    while rest:  # a write cut short is followed by one that says why
        written = os.pwrite(fd, rest, place)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest, place = rest[written:], place + written
