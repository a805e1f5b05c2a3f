"""What senders do wrong, in the daemon's log: at once the first time, then no more than once a minute for each."""

import time
from typing import Final, NamedTuple

import structlog

log = structlog.get_logger("listener")

#: Seconds between two lines about the same sender and fault.
PAUSE: Final = 60.0
#: Senders and faults that are remembered; beyond it the one that was said first is forgotten.
_MOST: Final = 1000
#: Lines a minute, of all senders together: addresses can be made up.
MOST_LINES: Final = 60
#: Characters of a reason, which may hold what was sent.
_LONGEST: Final = 300


class _Said(NamedTuple):
    when: float
    #: How often it has happened since.
    more: int


class Complaints:
    """Says what is wrong with what is sent, without a line for each time."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, ...], _Said] = {}
        #: When the present minute began, the lines that it has, and what was left out in it.
        self._minute, self._lines, self._left_out = 0.0, 0, 0

    def say(
        self, event: str, transport: str, peer: str, reason: str, times: int = 1, *, listener: str = "", kind: str = ""
    ) -> None:
        """Log a warning, unless one of the same event, transport, peer, listener and kind was less than a minute ago.

        The line has the newest reason, and how many times it happened since the line before. Reasons that shall not
        stand for one another are each of a `kind`.
        """
        key, now = (event, transport, peer, listener, kind), time.monotonic()
        before = self._said.pop(key, None)
        if before and now - before.when < PAUSE:
            self._said[key] = before._replace(more=before.more + times)
            return
        if len(self._said) >= _MOST:
            del self._said[next(iter(self._said))]
        self._said[key] = _Said(now, 0)
        times += before.more if before else 0
        if not self._room(now):
            self._left_out += times
            return
        whose = {name: value for name, value in (("listener", listener), ("peer", peer)) if value}
        log.warning(event, transport=transport, **whose, times=times, reason=reason[:_LONGEST])

    def _room(self, now: float) -> bool:
        """Take one of the lines of this minute; say first what the minute before left out."""
        if now - self._minute >= PAUSE:
            if self._left_out:
                log.warning("more senders were wrong than are named", times=self._left_out)
            self._minute, self._lines, self._left_out = now, 0, 0
        self._lines += 1
        return self._lines <= MOST_LINES
