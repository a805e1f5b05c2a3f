"""What a protocol over a stream is: a session is one connection, sans-IO, bytes in and turns out.

A turn is what was decoded together with the answer that may be sent once all of it, and of the turns before it, is
durable. The listener stores turns as they come, together with those of other connections, and sends their answers in
the order of the turns. Senders of RELP, Fluent Forward and Lumberjack wait for answers, others get none.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from logagg.protocols.columns import Columnar
from logagg.protocols.framing import Cut, Framer
from logagg.protocols.record import Decoded, Decoder, Origin, Reject


class Turn(NamedTuple):
    """Records, and what their sender is told once they are durable."""

    #: May be empty: then the answer waits for the turns before it only.
    decoded: Decoded | Columnar
    #: Sent once the records are durable, behind the answers of the turns before; empty where the sender awaits none.
    answer: bytes = b""
    #: The sender's own name for this batch, the same when it sends it again: it is stored once. None: it has no name.
    key: str | None = None
    #: Bytes as received.
    size: int = 0
    #: The answer is the last thing said: the connection is closed behind it.
    last: bool = False
    #: How many frames were longer than allowed, and are here as their starts.
    cut: int = 0


class Session(Protocol):
    """One connection. Never raises, whatever the bytes; holds at most one frame."""

    def greeting(self) -> bytes:
        """Return what is said before the sender says anything; mostly nothing."""

    def feed(self, data: bytes, origin: Origin) -> list[Turn]:
        """Take what was read; return what it makes whole. All that one read brings is one turn where the answers allow.

        A broken stream ends with a turn that is `last`: its rejects say what could not be read, with the numbers.
        """

    def close(self, origin: Origin) -> list[Turn]:
        """Return what the end of the stream makes whole: a frame that was cut short is a reject."""


class FramedSession:
    """A connection that brings frames and awaits no answer. A read is one turn; frames that were cut are another."""

    def __init__(self, framer: Framer, decode: Decoder, decode_cut: Callable[[list[Cut], Origin], Decoded]) -> None:
        """`decode_cut` turns frames that were cut into records, or rejects."""
        self._framer = framer
        self._decode = decode
        self._decode_cut = decode_cut

    def greeting(self) -> bytes:
        """Return nothing."""
        return b""

    def feed(self, data: bytes, origin: Origin) -> list[Turn]:
        """Decode the frames that are whole."""
        return self._turns(self._framer.feed(data), len(data), origin)

    def close(self, origin: Origin) -> list[Turn]:
        """Decode what the end of the stream makes a frame."""
        return self._turns(self._framer.close(), 0, origin)

    def _turns(self, frames: list[bytes], size: int, origin: Origin) -> list[Turn]:
        decoded = self._decode(frames, origin)
        for raw, reason in self._framer.take_broken():
            decoded.rejects.append(Reject(origin.now, origin.transport, origin.peer, reason, raw))
        turns = [Turn(decoded, size=size, last=self._framer.ended)]
        if cut := self._framer.take_cut():
            turns.insert(0, Turn(self._decode_cut(cut, origin), cut=len(cut)))
        return turns


class SniffedSession:
    """A connection whose first byte tells what is spoken over it."""

    def __init__(self, choose: Callable[[int], Session]) -> None:
        self._choose = choose
        self._chosen: Session | None = None

    def greeting(self) -> bytes:
        """Return nothing: the sender begins."""
        return b""

    def feed(self, data: bytes, origin: Origin) -> list[Turn]:
        """Hand on what was read."""
        if self._chosen is None:
            self._chosen = self._choose(data[0])
        return self._chosen.feed(data, origin)

    def close(self, origin: Origin) -> list[Turn]:
        """Hand on the end."""
        return self._chosen.close(origin) if self._chosen else []
