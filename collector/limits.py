"""How much a source may send: records and bytes a second, with a burst, by its token or else its address.

What has come is taken, and the source owes the time that it is worth; while that is more than the burst it sends no
more: HTTP answers 503, connections are not read, datagrams are dropped and counted.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web

from logagg.collector.complaints import Complaints
from logagg.collector.metrics import Metrics
from logagg.collector.networks import Networks
from logagg.collector.turned_away import STRANGER, stranger
from logagg.query.grants import Grant, Guard, grant_of, refused

#: Sources that are remembered; beyond it the one that was quiet for longest begins anew.
MOST_SOURCES: Final = 10_000
#: Sources with a name in the metrics; those beyond are counted together.
MOST_NAMES: Final = 100
OTHERS: Final = "others"


class Limits:
    """What each source has used up; without limits nothing is kept."""

    def __init__(
        self,
        metrics: Metrics,
        records: int | None = None,
        size: int | None = None,
        burst: float = 0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Allow so many records and bytes a second; `burst` is the seconds whose worth may come at once."""
        self._metrics = metrics
        self._rates = (records or float("inf"), size or float("inf"))
        self._on = bool(records or size)
        self._burst = burst
        self._now = now
        self._complaints = Complaints()
        #: Of each source, the times until which what it sent would have lasted.
        self._lasts: dict[str, tuple[float, ...]] = {}
        self._names: set[str] = set()

    def charge(self, source: str, records: int, size: int) -> float:
        """Count what a source has sent; return the seconds for which it shall send no more."""
        if not self._on:
            return 0.0
        now = self._now()
        before = self._lasts.pop(source, (now, now))
        used = zip(before, (records, size), self._rates, strict=True)
        self._lasts[source] = tuple(max(now, last) + amount / rate for last, amount, rate in used)
        if len(self._lasts) > MOST_SOURCES:
            del self._lasts[next(iter(self._lasts))]
        return self.wait(source)

    async def pause(self, source: str, transport: str, records: int, size: int) -> None:
        """Count what a source has sent, and return when it may send more."""
        if seconds := self.charge(source, records, size):
            self.over(source, transport)
            await asyncio.sleep(seconds)

    def wait(self, source: str) -> float:
        """Return the seconds for which a source shall send no more, mostly 0."""
        lasts = self._lasts.get(source) if self._on else None
        return max(0.0, max(lasts) - self._now() - self._burst) if lasts else 0.0

    def over(self, source: str, transport: str) -> None:
        """Count and say that a source was made to wait, or lost what it sent."""
        if len(self._names) < MOST_NAMES:
            self._names.add(source)
        self._metrics.limited.labels(source if source in self._names else OTHERS).inc()
        self._complaints.say("over its limit", transport, source, f"it may go on in {self.wait(source):.1f} s")


def source_of(request: web.Request) -> str:
    """Return who sends: the name of its token, else its address."""
    token = grant_of(request).name
    return f"token {token}" if token else request.remote or ""


def guarding(admit: Guard, networks: Networks, limits: Limits, metrics: Metrics) -> Guard:
    """Return what asks, before a request is read, also for its network, and whether it sends too much.

    The guard raises HTTPForbidden, and HTTPServiceUnavailable, which all senders try again: fluentd gives up what is
    answered with 429.
    """
    complaints = Complaints()

    def guard(request: web.Request, scope: str) -> Grant:
        peer = request.remote or ""
        if not networks.allows(peer):
            metrics.refused_requests.labels("403").inc()
            why = stranger(peer, "http_listen")
            complaints.say(STRANGER, "http", peer, why, listener="http_listen")
            raise refused(403, why)
        grant = admit(request, scope)
        source = f"token {grant.name}" if grant.name else peer
        if scope == "ingest" and (seconds := limits.wait(source)):
            limits.over(source, "http")
            raise web.HTTPServiceUnavailable(
                reason=f"{source} is over its limit of records or bytes a second",
                headers={"Retry-After": str(int(seconds) + 1)},
            )
        return grant

    return guard
