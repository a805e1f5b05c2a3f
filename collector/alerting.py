"""Alerts: asks what the rules ask, and tells their webhooks when one begins to fire and when it ceases.

One daemon of a database does it, for as long as it holds the table of alerts. What was found, and the messages that
were not taken yet, stand in that table: so a message is sent at least once, whichever daemon dies.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import urlencode

import aiohttp
import orjson
import structlog

from logagg.collector.alerting_webhook import NotTaken, post
from logagg.collector.alerts import Rule
from logagg.collector.complaints import Complaints
from logagg.collector.metrics import Metrics
from logagg.query.answers import Filter
from logagg.query.engine import Engine
from logagg.query.errors import QueryError, QueryLimit
from logagg.sinks.alerts import Alerts, Held, State
from logagg.sinks.errors import StoreError

log = structlog.get_logger("alerts")

#: Seconds until a daemon that does not hold the table tries again.
ELECTION: Final = 5.0
#: Seconds between two tries to send a message, the first and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
#: Messages of one rule that wait; beyond it the oldest is given up.
MOST_WAITING: Final = 20
#: Records or patterns in a message, and characters of each text.
EXAMPLES: Final = 3
_LONGEST: Final = 1000
#: How far back a pattern is looked for that shall be new, at least.
BEFORE: Final = timedelta(days=1)
_MOST_PATTERNS: Final = 1000
_SHOWN: Final = ("id", "timestamp", "level", "host", "service", "environment", "message")


class Found(NamedTuple):
    """What a rule has found."""

    firing: bool
    #: Records, seconds of silence, or new patterns; None for a silence of what was not seen yet.
    value: float | None
    records: Sequence[dict[str, Any]] = ()
    patterns: Sequence[dict[str, Any]] = ()


async def evaluate(engine: Engine, rule: Rule, state: State, now: datetime) -> Found:
    """Ask what a rule asks, about the time before now. Raises QueryError, QueryLimit, StoreError."""
    asked = Filter(start=now - rule.span, end=now, q=rule.asked or None)
    if rule.silence:
        newest = (await engine.search(asked, limit=1)).records
        return silence(rule.silence, state, newest[0]["timestamp"] if newest else None, now)
    if rule.new_pattern:
        asked = Filter(start=now - max(BEFORE, 2 * rule.window), end=now, q=rule.asked)
        answer = await engine.patterns(asked, limit=_MOST_PATTERNS, new_since=now - rule.window)
        new = [each for each in answer.patterns if each.new]
        shown = [
            {"pattern": each.template[:_LONGEST], "count": each.count, "example": each.example[:_LONGEST]}
            for each in new[:EXAMPLES]
        ]
        return Found(bool(new), len(new), patterns=shown)
    count = sum(row["count"] for row in (await engine.aggregate(asked, ["level"])).rows)
    if count < (rule.threshold or 0):
        return Found(False, count)
    records = (await engine.search(asked, limit=EXAMPLES)).records
    short = [{name: record[name] for name in _SHOWN} | {"message": record["message"][:_LONGEST]} for record in records]
    return Found(True, count, orjson.loads(orjson.dumps(short, option=orjson.OPT_UTC_Z)))


def silence(span: timedelta, state: State, newest: datetime | None, now: datetime) -> Found:
    """Tell whether a silence has lasted for a span, by the newest record of that span, and by what was known.

    It grows from one evaluation to the next, so that the time in which nobody looked is none; and what was never seen
    is missed when it was not seen for a span since it is looked for.
    """
    since_known = None if state.value is None else state.value + (now - state.checked_at).total_seconds()
    since_newest = None if newest is None else (now - newest).total_seconds()
    quiet = min((each for each in (since_known, since_newest) if each is not None), default=None)
    if quiet is None:
        return Found(state.firing or now - state.since >= span, None)
    return Found(quiet >= span.total_seconds(), quiet)


class _Changed(Exception):
    """There are other rules."""


class Alerting:
    """The alerts of one daemon."""

    def __init__(
        self,
        rules: Sequence[Rule],
        table: Alerts,
        engine: Engine,
        metrics: Metrics,
        page: str,
        behind: Callable[[], bool],
    ) -> None:
        """`page` is the address of the page; `behind` tells whether records wait in the journal.

        While they do nothing is silent.
        """
        self._know(rules)
        self._table = table
        self._engine = engine
        self._metrics = metrics
        self._page = page.rstrip("/")
        self._behind = behind
        self._complaints = Complaints()
        self._changed = asyncio.Event()

    def take(self, rules: Sequence[Rule]) -> None:
        """Take these rules instead of those before."""
        self._know(rules)
        self._changed.set()

    def _know(self, rules: Sequence[Rule]) -> None:
        self.rules = {rule.name: rule for rule in rules}
        for rule in rules:
            if hint := rule.hint:
                log.warning("an alert may look for the wrong field", alert=rule.name, hint=hint)

    async def run(self) -> NoReturn:
        """Evaluate and tell until cancelled, whenever no other daemon does."""
        while True:
            self._changed.clear()
            try:
                if self.rules:
                    async with self._table.held() as held:
                        if held:
                            await self._hold(held)
            except* StoreError as errors:
                self._complaints.say("alerts wait for PostgreSQL", "alerts", "", str(errors.exceptions[0]))
            except* _Changed:
                log.info("the alerts have changed", alerts=list(self.rules))
            except* Exception as errors:  # alerts must not end the daemon
                log.error("alerts have failed", exc_info=errors)
            finally:
                self._metrics.alert_firing.clear()
                self._metrics.alert_waiting.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), ELECTION if self.rules else None)

    async def _hold(self, held: Held) -> NoReturn:
        known = await held.load(self.rules.keys())
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
            for rule in self.rules.values():
                now = datetime.now(UTC)  # from here on somebody looks again
                state = known.get(rule.name, _unknown(rule, now))._replace(checked_at=now)
                self.show(state)
                one = _One(self, held, rule, state)
                group.create_task(one.watch(), name=f"alert {rule.name}: watch")
                group.create_task(one.tell(http), name=f"alert {rule.name}: tell")
            await self._changed.wait()
            raise _Changed

    async def evaluate(self, rule: Rule, state: State) -> Found | None:
        """Ask what a rule asks that stands so; None when that cannot be told now, which is said. Raises StoreError."""
        if rule.silence and self._behind():
            return None
        try:
            return await evaluate(self._engine, rule, state, datetime.now(UTC))
        except (QueryError, QueryLimit) as error:
            self.failed(rule, "query", str(error))
            return None

    def failed(self, rule: Rule, what: str, reason: str) -> None:
        """Say that an alert could not be evaluated, or told."""
        self._metrics.alert_failures.labels(rule.name, what).inc()
        self._complaints.say(f"an alert fails: {what}", "alerts", rule.name, reason)

    def show(self, state: State) -> None:
        """Set the metrics."""
        self._metrics.alert_firing.labels(state.name).set(state.firing)
        self._metrics.alert_waiting.labels(state.name).set(len(state.waiting))

    def message(self, rule: Rule, state: str, found: Found, since: datetime) -> dict[str, Any]:
        """Return what a webhook is told: `firing`, `resolved` or `test`."""
        start = since - rule.span
        link = {"q": rule.asked, "start": _text(start), **({} if state == "firing" else {"end": _text(since)})}
        return {
            "id": uuid.uuid4().hex,
            "name": rule.name,
            "state": state,
            "since": _text(since),
            "value": _rounded(found.value),
            "condition": rule.condition,
            "query": rule.asked,
            "records": list(found.records),
            "patterns": list(found.patterns),
            "link": f"{self._page}/?{urlencode(link)}",
        }

    async def states(self) -> list[dict[str, Any]]:
        """Return every rule and how it stands, as JSON. Raises StoreError."""
        known = await self._table.all()
        return [_listed(rule, known.get(rule.name)) for rule in self.rules.values()]

    async def test(self, rule: Rule) -> dict[str, Any]:
        """Evaluate a rule now and post a test message; return what came of both. Raises StoreError."""
        known = await self._table.all()
        found = await self.evaluate(rule, known.get(rule.name, _unknown(rule, datetime.now(UTC))))
        told = found or Found(False, None)
        async with aiohttp.ClientSession() as http:
            try:
                status, problem = await post(http, rule, self.message(rule, "test", told, datetime.now(UTC))), None
            except NotTaken as error:
                status, problem = None, str(error)
        return {
            "name": rule.name,
            "firing": found and found.firing,
            "value": found and _rounded(found.value),
            "unit": rule.unit,
            "condition": rule.condition,
            "status": status,
            "problem": problem,
        }


class _One:
    """One rule, while the table is held."""

    def __init__(self, alerting: Alerting, held: Held, rule: Rule, state: State) -> None:
        self._alerting = alerting
        self._held = held
        self._rule = rule
        self._state = state
        #: Changes of the state, one after the other.
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()

    async def watch(self) -> NoReturn:
        """Evaluate the rule again and again. Raises StoreError."""
        loop = asyncio.get_running_loop()
        while True:
            next_ = loop.time() + self._rule.every.total_seconds()
            try:
                if found := await self._alerting.evaluate(self._rule, self._state):
                    await self._settle(found)
            except StoreError:
                raise
            except Exception as error:  # one rule must not end the others
                log.exception("an alert fails", alert=self._rule.name)
                self._alerting.failed(self._rule, "query", type(error).__name__)
            await asyncio.sleep(max(0, next_ - loop.time()))

    async def _settle(self, found: Found) -> None:
        now = datetime.now(UTC)
        async with self._turn:
            state = self._state._replace(value=found.value, checked_at=now)
            if found.firing != state.firing:
                message = self._alerting.message(self._rule, "firing" if found.firing else "resolved", found, now)
                waiting = (*state.waiting, message)
                if len(waiting) > MOST_WAITING:
                    self._alerting.failed(self._rule, "webhook", f"more than {MOST_WAITING} messages wait")
                state = state._replace(firing=found.firing, since=now, waiting=waiting[-MOST_WAITING:])
                say = log.warning if found.firing else log.info
                value = _rounded(found.value)
                say("an alert fires" if found.firing else "an alert is resolved", alert=state.name, value=value)
            await self._save(state)
        self._news.set()

    async def _save(self, state: State) -> None:
        await self._held.save(state)
        self._state = state
        self._alerting.show(state)

    async def tell(self, http: aiohttp.ClientSession) -> NoReturn:
        """Send what waits, in order, each until it is taken. Raises StoreError."""
        pause = FIRST_PAUSE
        while True:
            while not self._state.waiting:
                self._news.clear()
                await self._news.wait()
            message = self._state.waiting[0]
            await self._held.ours()  # else another daemon tells it
            try:
                await post(http, self._rule, message)
            except NotTaken as error:
                self._alerting.failed(self._rule, "webhook", str(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            async with self._turn:
                left = tuple(each for each in self._state.waiting if each["id"] != message["id"])
                await self._save(self._state._replace(waiting=left))


def _unknown(rule: Rule, now: datetime) -> State:
    return State(rule.name, False, now, None, now)


def _listed(rule: Rule, state: State | None) -> dict[str, Any]:
    return {
        "name": rule.name,
        "state": ("firing" if state.firing else "ok") if state else "unknown",
        "since": state and state.since,
        "value": state and _rounded(state.value),
        "unit": rule.unit,
        "checked_at": state and state.checked_at,
        "waiting": len(state.waiting) if state else 0,
        "condition": rule.condition,
        "query": rule.asked,
    }


def _rounded(value: float | None) -> float | None:
    """Return what is shown of a value; the state has the whole one, as a silence grows by short times."""
    return None if value is None else round(value, 1)


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
