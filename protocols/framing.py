"""Bytes of a connection to frames: by line, and by line or octet count as syslog does (RFC 6587).

`feed` takes what arrived and gives the frames that it completes, without their ends, never an empty one. A frame of
more than `max_frame` bytes comes out of `take_cut` instead, as its head and its length; what follows it is not touched.
Bytes that can never be a frame come out of `take_broken`. No framer keeps more than `max_frame` bytes and a few, and
none looks twice at what has arrived: a drip of single bytes is as cheap as it can be.
"""

import re
from typing import NamedTuple, Protocol

#: RFC 6587 section 3.4.1, with a limit; or the beginning of one, at the end of what has arrived.
_COUNT = re.compile(rb"[1-9][0-9]{0,7}(?: |\Z)")
_DIGITS = frozenset(b"%d" % digit for digit in range(1, 10))
#: Python's SysLogHandler ends a message by NUL. A NUL that the next message does not follow is part of the text.
_NUL_END = re.compile(rb"\0(?=<|\Z)")


class Cut(NamedTuple):
    """A frame that was longer than allowed: its first `max_frame` bytes, and its whole length in bytes."""

    frame: bytes
    length: int


class Framer(Protocol):
    """Bytes in, frames out."""

    #: Nothing that follows can be read any more.
    ended: bool

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read, return the frames that are whole."""

    def close(self) -> list[bytes]:
        """Return what the end of the stream makes whole."""

    def take_cut(self) -> list[Cut]:
        """Return the frames cut since last asked."""

    def take_broken(self) -> list[tuple[bytes, str]]:
        """Return what will never be a frame, with the reasons, since last asked."""


class LineFramer:
    """Frames end with LF or CR LF. The CR counts for `Cut.length`, but not for the limit."""

    ended = False

    def __init__(self, max_frame: int) -> None:
        self._max = max_frame
        #: Of the frame that has begun: its first `max_frame` + 1 bytes (the last may be a CR), and its length so far.
        self._head = bytearray()
        self._length = 0
        self._cut: list[Cut] = []
        self._broken: list[tuple[bytes, str]] = []

    def feed(self, data: bytes) -> list[bytes]:
        """Give the frames that `data` completes."""
        lines = data.split(b"\n")
        return self._lines(lines, lines.pop(), data)

    def close(self) -> list[bytes]:
        """Give the last line, which had no end."""
        return [line] if (line := self._end_line(b"")) else []

    def take_cut(self) -> list[Cut]:
        """Give the frames over the limit since this was last asked."""
        cut, self._cut = self._cut, []
        return cut

    def take_broken(self) -> list[tuple[bytes, str]]:
        """Give bytes that will never be a frame, since this was last asked, each with the reason."""
        broken, self._broken = self._broken, []
        return broken

    def _lines(self, lines: list[bytes], tail: bytes, data: bytes) -> list[bytes]:
        """Give frames of whole lines; the first may have begun before, `tail` begins the next. All are of `data`."""
        frames: list[bytes] = []
        if lines and self._length:
            frames.append(self._end_line(lines.pop(0)))
        if len(data) > self._max and max(map(len, lines), default=0) > self._max:
            lines = [self._fit(line, len(line)) for line in lines]
        elif b"\r" in data:
            lines = [line.removesuffix(b"\r") for line in lines]
        frames += lines
        if tail:
            self._hold(tail)
        return list(filter(None, frames))

    def _hold(self, part: bytes) -> None:
        self._length += len(part)
        room = self._max + 1 - len(self._head)
        if room > 0:
            self._head += part[:room]

    def _end_line(self, part: bytes) -> bytes:
        self._hold(part)
        head, length = self._release()
        return self._fit(head, length)

    def _release(self) -> tuple[bytes, int]:
        head, length = bytes(self._head), self._length
        self._head.clear()
        self._length = 0
        return head, length

    def _fit(self, line: bytes, length: int) -> bytes:
        """Give the line without its CR; nothing, and one cut more, if it is too long."""
        text = line.removesuffix(b"\r") if length == len(line) else line
        if len(text) <= self._max:
            return text
        self._cut.append(Cut(line[: self._max], length))
        return b""


class SyslogFramer(LineFramer):
    """Frames by octet count or by line, as the first byte of each says: `LEN SP MSG`, or up to LF, CR LF or NUL.

    A NUL ends a line if `<` follows it, or nothing yet: so a NUL within a text stays there.
    """

    def __init__(self, max_frame: int) -> None:
        super().__init__(max_frame)
        #: What may become a count: up to eight digits.
        self._start = b""
        #: Of a counted frame: its length, and how much of it is still to come.
        self._count = 0
        self._missing = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Give the frames that `data` completes."""
        if self._start:
            data, self._start = self._start + data, b""
        if self._missing:
            return self._mixed(data)
        lines = data.split(b"\n")
        if not _DIGITS.isdisjoint({line[:1] for line in lines}) and any(map(_COUNT.match, lines)):
            return self._mixed(data)
        return self._text(lines, data)

    def close(self) -> list[bytes]:
        """Give the last line, which had no end. A counted frame cut short is broken."""
        if self._missing:
            head, length = self._release()
            reason = f"counted frame of {self._count} bytes, cut short after {length}"
            self._broken.append((b"%d %b" % (self._count, head), reason))
            self._missing = 0
            return []
        self._hold(self._start)  # digits that did not become a count are the last line
        self._start = b""
        return super().close()

    def _text(self, lines: list[bytes], data: bytes) -> list[bytes]:
        """Give frames of lines, the last of which goes on; a NUL may end one too."""
        tail = lines.pop()
        if b"\0" in data:
            *done, tail = _NUL_END.split(tail)
            lines = [part for line in lines for part in _NUL_END.split(line)] + done
        return self._lines(lines, tail, data)

    def _mixed(self, data: bytes) -> list[bytes]:
        """Give frames of `data`, one after the other."""
        frames: list[bytes] = []
        place = 0
        while place < len(data):
            if self._missing:
                place = self._counted(data, place, frames)
            elif not self._length and (count := _COUNT.match(data, place)):
                if data[count.end() - 1] != ord(" "):
                    self._start = count[0]
                    break
                self._count = self._missing = int(count[0])
                place = count.end()
                if self._count <= self._max and place + self._count <= len(data):
                    frames.append(data[place : place + self._count])
                    place += self._count
                    self._missing = 0
            else:
                end = data.find(b"\n", place) + 1 or len(data)
                line = data[place:end]
                frames += self._text(line.split(b"\n"), line)
                place = end
        return frames

    def _counted(self, data: bytes, place: int, frames: list[bytes]) -> int:
        """Take what `data` has of a counted frame that is in pieces or too long; the place behind it."""
        part = data[place : place + self._missing]
        self._missing -= len(part)
        self._hold(part)
        if not self._missing:
            head, length = self._release()
            if length <= self._max:
                frames.append(head)
            else:
                self._cut.append(Cut(head[: self._max], length))
        return place + len(part)
