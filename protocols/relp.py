"""RELP, the protocol of rsyslog's omrelp: syslog messages with numbers, each of which gets a response.

A frame is `TXNR SP COMMAND SP DATALEN [SP DATA] LF`; doc/relp.html of https://github.com/rsyslog/librelp. What that
leaves open is done as librelp's own receiver does it, but for these: a syslog message is never refused (`rsp 500` makes
its sender throw it away), one before `open` is taken, and of one that is too long the start is kept.
"""

import re
from typing import Final, NamedTuple

from logagg.protocols.columns import to_records
from logagg.protocols.mapping import add_note
from logagg.protocols.record import Decoded, Decoder, Origin, Reject
from logagg.protocols.session import Turn

#: Number, command, length: at most 9 digits, 32 letters and, as for a count of RFC 6587, 8 digits. Only behind a length
#: of 0 the LF may follow at once.
_HEADER: Final = re.compile(rb"([0-9]{1,9}) ([a-zA-Z]{1,32}) (?:([0-9]{1,8}) |0{1,8}(?=\n))")
#: The beginning of one, at the end of what has arrived; and more bytes than any has.
_BEGUN: Final = re.compile(rb"[0-9]{1,9}(?: (?:[a-zA-Z]{1,32}(?: [0-9]{0,8})?)?)?\Z")
_LONGEST: Final = 64
_LF: Final = ord("\n")
_LAST_NUMBER: Final = 999_999_999

_TAKEN: Final = b"%b rsp 6 200 OK\n"
_OFFERS: Final = b"200 OK\nrelp_version=0\nrelp_software=logagg\ncommands=syslog"
_ALREADY_OPEN: Final = b"200 connection already open - ignored"
_NO_SYSLOG: Final = b"500 required command not supported by client"
_SYSLOG_OFFERED: Final = re.compile(rb"^commands=(?:[^\n]*,)?syslog(?:,|$)", re.MULTILINE)
#: A hint, which has no number of its own: the connection is closed behind it.
_CLOSED: Final = b"0 serverclose 0\n"


class _Header(NamedTuple):
    """What stands before the data of a frame."""

    number: bytes
    command: bytes
    length: int


class RelpSession:
    """One connection. All syslog messages of one read are one turn, whose answer has a response for each.

    A message of more than `max_frame` bytes is a turn of its own: its start, with a note. What is no RELP ends the
    session, and so does a number out of order, as with librelp: what got no response comes again over a new connection.
    """

    def __init__(self, max_frame: int, decode: Decoder) -> None:
        self._max = max_frame
        self._decode = decode
        #: The start of a header.
        self._begun = b""
        #: Of a frame in pieces: its header, its data as far as kept, and how much is to come, with the LF.
        self._header: _Header | None = None
        self._head = bytearray()
        self._missing = 0
        #: The number of the next frame.
        self._next = 1
        self._opened = False
        self._over = False
        #: Bytes received that are in no turn yet.
        self._size = 0

    def greeting(self) -> bytes:
        """Return nothing: the sender begins."""
        return b""

    def feed(self, data: bytes, origin: Origin) -> list[Turn]:
        """Take what was read; return the turns that it makes whole. Behind the last turn nothing is taken."""
        if self._over:
            return []
        self._size += len(data)
        turns = _Turns(self._max, self._decode, origin)
        data, self._begun = self._begun + data, b""
        place = 0 if self._header is None else self._go_on(self._header, data, 0, turns)
        self._take(data, place, turns)
        return self._end(turns)

    def close(self, origin: Origin) -> list[Turn]:
        """Return what the end of the stream leaves: a frame that was cut short is a reject, without a response."""
        if self._over:
            return []
        turns = _Turns(self._max, self._decode, origin)
        if self._header:
            length = self._header.length
            self._break(turns, b"", f"RELP frame of {length} bytes, cut short after {length + 1 - self._missing}")
        elif self._begun:
            self._break(turns, self._begun, f"RELP header, cut short after {len(self._begun)} bytes")
        self._over = True
        return self._end(turns)

    def _end(self, turns: "_Turns") -> list[Turn]:
        turns.end(last=self._over)
        if turns.done:
            turns.done[0] = turns.done[0]._replace(size=self._size)
            self._size = 0
        return turns.done

    def _take(self, data: bytes, place: int, turns: "_Turns") -> None:
        """Take frames, one after the other: most in the short way, and what is odd or not yet whole in the long one."""
        size, longest = len(data), self._max
        while place < size and not self._over:
            found = _HEADER.match(data, place)
            if found is None:
                self._hold(data[place:], turns)
                break
            number, command, length = found.groups()
            start = found.end()
            end = start + int(length or b"0")
            if (
                command == b"syslog"
                and end < size
                and data[end] == _LF
                and 0 < end - start <= longest
                and int(number) == self._next
            ):
                turns.frames.append(data[start:end])
                turns.answers.append(_TAKEN % number)
                self._next = self._next + 1 if self._next < _LAST_NUMBER else 1
                place = end + 1
            else:
                self._header, self._missing = _Header(number, command, end - start), end - start + 1
                place = self._go_on(self._header, data, start, turns)

    def _hold(self, rest: bytes, turns: "_Turns") -> None:
        """Keep the start of a header, unless it can never become one."""
        if _BEGUN.match(rest[:_LONGEST]):
            self._begun = rest
        else:
            self._break(turns, rest, "not RELP: no number of 9 digits at most, command, and length of 8 digits at most")

    def _go_on(self, header: _Header, data: bytes, place: int, turns: "_Turns") -> int:
        """Take what there is of a frame that has begun; return the place behind it."""
        end = min(place + self._missing, len(data))
        room = min(header.length, self._max) - len(self._head)
        self._head += data[place : min(end, place + room)]
        self._missing -= end - place
        if self._missing == 0:
            if data[end - 1] == _LF:
                self._end_frame(header, turns)
            else:
                self._break(turns, data[end - 1 :], f"RELP frame of {header.length} bytes, no LF behind it")
        return end

    def _end_frame(self, header: _Header, turns: "_Turns") -> None:
        """Do what a frame says that has come to its end."""
        number, command = int(header.number), header.command
        if number not in (0, self._next):
            self._break(turns, b"", f"RELP frame {number}, expected {self._next}")
        elif command == b"syslog":
            turns.add(header.number, bytes(self._head), header.length)
        elif command == b"open":
            self._open(header.number, turns)
        elif command == b"close":
            turns.answers += [b"%b rsp 0\n" % header.number, _CLOSED]
            self._over = True
        else:
            self._break(turns, b"", f"RELP frame {number}, unknown command {command.decode()}")
        if number:  # those without one are hints
            self._next = number % _LAST_NUMBER + 1
        self._header = None
        self._head.clear()

    def _open(self, number: bytes, turns: "_Turns") -> None:
        if self._opened:
            turns.respond(number, _ALREADY_OPEN)
        elif _SYSLOG_OFFERED.search(self._head):
            self._opened = True
            turns.respond(number, _OFFERS)
        else:
            turns.respond(number, _NO_SYSLOG)
            self._break(turns, b"", f"RELP open of {len(self._head)} bytes that does not offer syslog")

    def _break(self, turns: "_Turns", rest: bytes, reason: str) -> None:
        """End the session: the frame that has begun, and the rest of what was read, can never be read."""
        raw = b"%b %b %d " % self._header + self._head if self._header else b""
        turns.reject((raw + rest)[: self._max], reason)
        turns.answers.append(_CLOSED)
        self._over = True


class _Turns:
    """What one read brings: turns that are done, and what becomes the next."""

    def __init__(self, max_frame: int, decode: Decoder, origin: Origin) -> None:
        self.done: list[Turn] = []
        self.frames: list[bytes] = []
        self.answers: list[bytes] = []
        self._rejects: list[Reject] = []
        self._max = max_frame
        self._decode = decode
        self._origin = origin

    def respond(self, number: bytes, data: bytes) -> None:
        """Answer a frame."""
        self.answers.append(b"%b rsp %d %b\n" % (number, len(data), data))

    def reject(self, raw: bytes, reason: str) -> None:
        """Say what could not be read."""
        self._rejects.append(Reject(self._origin.now, self._origin.transport, self._origin.peer, reason, raw))

    def add(self, number: bytes, head: bytes, length: int) -> None:
        """Take a syslog message; of one that is too long, its head is a turn of its own. An empty one says nothing."""
        if length <= self._max:
            if head:
                self.frames.append(head)
            self.answers.append(_TAKEN % number)
            return
        self.end()
        decoded = self._decode([head], self._origin)
        records = decoded.records if isinstance(decoded, Decoded) else to_records(decoded.records)
        note = f"cut: frame of {length} bytes, at most {self._max}"
        noted = Decoded([add_note(record, note) for record in records], decoded.rejects)
        self.done.append(Turn(noted, _TAKEN % number))

    def end(self, *, last: bool = False) -> None:
        """End the turn that has gathered, if there is anything in it."""
        if not (self.frames or self.answers or self._rejects):
            return
        decoded = self._decode(self.frames, self._origin) if self.frames else Decoded([], [])
        decoded.rejects.extend(self._rejects)
        self.done.append(Turn(decoded, b"".join(self.answers), last=last))
        self.frames, self.answers, self._rejects = [], [], []
