"""Bytes of a connection to frames: by line, by JSON value, and by line or octet count as syslog does (RFC 6587).

`feed` takes what arrived and gives the frames that it completes, without their ends, never an empty one. A frame of
more than `max_frame` bytes comes out of `take_cut` instead, as its head and its length; what follows it is not touched.
Bytes that can never be a frame come out of `take_broken`. No framer keeps more than `max_frame` bytes and a few, and
none looks twice at what has arrived: a drip of single bytes is as cheap as it can be.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

#: RFC 6587 section 3.4.1, with a limit; or the beginning of one, at the end of what has arrived.
_COUNT = re.compile(rb"[1-9][0-9]{0,7}(?: |\Z)")
_DIGITS = frozenset(b"%d" % digit for digit in range(1, 10))
#: Python's SysLogHandler ends a message by NUL. A NUL that the next message does not follow is part of the text.
_NUL_END = re.compile(rb"\0(?=<|\Z)")
#: JSON outside of texts up to the next bracket, with the texts in between; and the rest of a text, without its end.
_NO_BRACKET = re.compile(rb'[^"\[\]{}]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^"\[\]{}]*+)*+', re.DOTALL)
_IN_TEXT = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_QUOTE, _OPENING, _CLOSING = ord('"'), frozenset(b"[{"), (b"]", b"}")
#: Bytes of a line without an end that wait before they are searched for values: most lines come to their end sooner.
_UNSEARCHED = 65_536


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
        return list(filter(None, self._end_line(b"")))

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
            frames += self._end_line(lines.pop(0))
        if len(data) > self._max and max(map(len, lines), default=0) > self._max:
            for line in lines:
                frames += self._end_line(line)
        elif b"\r" in data:
            frames += [line.removesuffix(b"\r") for line in lines]
        else:
            frames += lines
        if tail:
            frames += self._begin_line(tail)
        return list(filter(None, frames))

    def _begin_line(self, part: bytes) -> list[bytes]:
        """Take a part of a line, whose end has not come; give the frames in it."""
        self._hold(part)
        return []

    def _end_line(self, part: bytes) -> list[bytes]:
        """Take the last part of a line; give the frames in it."""
        self._hold(part)
        head, length = self._release()
        return [self._fit(head, length)]

    def _hold(self, part: bytes) -> None:
        self._length += len(part)
        room = self._max + 1 - len(self._head)
        if room > 0:
            self._head += part[:room]

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


class JsonFramer(LineFramer):
    """Lines; and where no line ends, JSON objects and arrays one behind the other, as fluent-bit's `tcp` output writes.

    A line that has come to its end is one frame, whatever it holds, unless it is too long. Of one that has not, each
    object and array is a frame as soon as it is closed. A line end sets all right again after what is no JSON.
    """

    def __init__(self, max_frame: int) -> None:
        super().__init__(max_frame)
        #: How much of `_head` was searched, and where that leaves off: how many brackets are open, and whether it is
        #: within a text, behind a backslash.
        self._searched = 0
        self._depth = 0
        self._in_text = False
        self._escaped = False

    def _begin_line(self, part: bytes) -> list[bytes]:
        length = self._length + len(part)
        if length > self._max or length - self._searched > _UNSEARCHED or part.rstrip().endswith(_CLOSING):
            return self._search(part)
        self._hold(part)
        return []

    def _end_line(self, part: bytes) -> list[bytes]:
        frames = []
        if self._length + len(part) > self._max:
            frames, part = self._search(part), b""
        self._searched, self._depth, self._in_text, self._escaped = 0, 0, False, False
        return frames + super()._end_line(part)

    def _search(self, part: bytes) -> list[bytes]:
        """Take a part of a line; give the values that are closed in what was not searched yet."""
        if self._searched < self._length:
            part = bytes(self._head[self._searched :]) + part
            del self._head[self._searched :]
            self._length = self._searched
        frames: list[bytes] = []
        place = 0
        for end in self._ends(part):
            frames += super()._end_line(part[place:end])
            place = end
        if place < len(part):
            self._hold(part[place:])
        self._searched = self._length
        return frames

    def _ends(self, part: bytes) -> Iterator[int]:
        """Give the places behind each bracket that closes all. Looks at each byte twice at most."""
        place, size = int(self._escaped), len(part)
        self._escaped = False
        while place < size:
            pattern = _IN_TEXT if self._in_text else _NO_BRACKET
            if found := pattern.match(part, place):
                place = found.end()
            if place == size:
                break
            mark = part[place]
            place += 1
            if mark == _QUOTE:
                self._in_text = not self._in_text
            elif self._in_text:  # a backslash, and nothing behind it yet
                self._escaped = True
            elif mark in _OPENING:
                self._depth += 1
            elif self._depth:
                self._depth -= 1
                if not self._depth:
                    yield place


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
