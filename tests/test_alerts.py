"""Alerts: real daemons, a real PostgreSQL, and a webhook that is a real server."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from logagg.cli.main import cli
from logagg.collector import alerting
from logagg.collector.alerting_webhook import NotTaken, post
from logagg.collector.alerts import Rule
from logagg.collector.metrics import Metrics
from logagg.sinks.alerts import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import asyncpg

    from logagg.query.engine import Engine
    from logagg.sinks.store import Store
    from logagg.tests.daemons import RunningDaemon, Starter

SECRET = "T0/B0/not-to-be-told"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerting, "ELECTION", 0.1)
    monkeypatch.setattr(alerting, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(alerting, "LONGEST_PAUSE", 0.1)


class Receiver:
    """A webhook that answers with the statuses it is given, then with 200."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.asked = 0
        self.taken: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.headers.append(request.headers.get("X-Key", ""))
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.taken.append(await request.json())
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    def rule(self, name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "every": "100ms", "webhook": self.url, **more}

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for such a message."""
        async with asyncio.timeout(30):
            while not (found := [each for each in self.taken if wanted(each)]):
                await asyncio.sleep(0.02)
        return found[0]

    async def state(self, name: str, state: str) -> dict[str, Any]:
        return await self.until(lambda each: (each["name"], each["state"]) == (name, state))


@asynccontextmanager
async def listening(receiver: Receiver, port: int = 0) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    chosen: int = runner.addresses[0][1]
    receiver.url = f"http://127.0.0.1:{chosen}/{SECRET}"
    try:
        yield chosen
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    async with listening(made):
        yield made


async def send(daemon: RunningDaemon, *messages: str, **more: Any) -> None:
    logs = [{"level": "ERROR", "service": "shop", "message": message, **more} for message in messages]
    async with daemon.http.post("/ingest", json=logs) as answer:
        assert answer.status == 200, await answer.text()


async def asked(daemon: RunningDaemon, *arguments: str) -> Result:
    url = f"http://{daemon.listening['http_listen']}"
    return await asyncio.to_thread(CliRunner().invoke, cli, ["alerts", *arguments, "--url", url], prog_name="logagg")


async def test_a_threshold_fires_is_told_when_the_webhook_answers_again_and_is_resolved(
    start_daemon: Starter, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    rule = receiver.rule(
        "errors", query="service=shop", threshold=3, window="2s", headers={"X-Key": "key-not-to-be-told"}
    )
    receiver.statuses = [500, 302, 404]
    daemon = await start_daemon(alerts=[rule], page_url="https://logs.example/")
    await send(daemon, "one", "two", "x" * 5000)
    fired = await receiver.state("errors", "firing")
    assert receiver.asked == 4
    assert (fired["value"], fired["condition"], fired["query"]) == (3, "at least 3 records in 2s", "service=shop")
    assert sorted(each["message"] for each in fired["records"]) == ["one", "two", "x" * 1000]
    assert fired["link"].startswith("https://logs.example/?q=service%3Dshop&start=20")
    resolved = await receiver.state("errors", "resolved")
    assert resolved["value"] < 3
    assert resolved["since"] > fired["since"]
    assert [each["state"] for each in receiver.taken] == ["firing", "resolved"]
    assert set(receiver.headers) == {"key-not-to-be-told"}
    assert await daemon.metric("logagg_alert_failures_total", alert="errors", what="webhook") == 3
    said = capfd.readouterr()
    assert "answered 500" in said.out + said.err
    async with daemon.http.get("/alerts") as answer:
        shown = await answer.text() + said.out + said.err
    assert SECRET not in shown
    assert "not-to-be-told" not in shown


async def test_a_silence_fires_and_ends_with_the_next_record(start_daemon: Starter, receiver: Receiver) -> None:
    daemon = await start_daemon(alerts=[receiver.rule("backup", query="service=backup", silence="1500ms")])
    assert (await receiver.state("backup", "firing"))["value"] is None  # it was never seen
    assert "none seen" in (await asked(daemon, "list")).stdout
    assert "it would fire: none seen" in (await asked(daemon, "test", "backup")).stdout
    assert await daemon.metric("logagg_alert_firing", alert="backup") == 1
    await send(daemon, "other service")
    await send(daemon, "here again", service="backup")
    assert (await receiver.state("backup", "resolved"))["value"] <= 1.5
    again = await receiver.until(lambda each: each["state"] == "firing" and each["value"] is not None)
    assert again["value"] >= 1.5
    listed = re.search(r" (\d\S*) seconds? +\d+ +no record for 1500ms", (await asked(daemon, "list")).stdout)
    assert listed
    for value in (str(again["value"]), listed[1]):
        assert re.fullmatch(r"\d+(\.\d)?", value)
    assert [each["state"] for each in receiver.taken if each["state"] != "test"] == ["firing", "resolved", "firing"]


def test_what_nobody_looked_at_is_no_silence() -> None:
    hour, minutes, start = timedelta(hours=1), timedelta(minutes=1), datetime(2026, 11, 20, tzinfo=UTC)
    state = State("a", False, start, None, start)

    def found(after: timedelta, newest: timedelta | None = None) -> tuple[bool, float | None]:
        at = start + after
        return alerting.silence(hour, state, None if newest is None else start + newest, at)[:2]

    assert found(0 * hour) == (False, None)  # never seen, and not missed before an hour
    assert found(hour) == (True, None)
    state = State("a", True, start + hour, None, start + hour)
    assert found(hour + minutes) == (True, None)  # it fires on
    assert found(hour + minutes, hour) == (False, 60)
    # Seen 20 minutes before all daemons were away, for five hours: that, and no more, is what is known of its silence.
    away = state._replace(firing=False, value=20 * 60)
    state = away._replace(checked_at=start + 5 * hour)
    assert found(5 * hour) == (False, 20 * 60)
    assert found(5 * hour + 39 * minutes) == (False, 59 * 60)
    assert found(5 * hour + 40 * minutes) == (True, 3600)
    assert found(5 * hour + 40 * minutes, 5 * hour + 10 * minutes) == (False, 30 * 60)


async def test_after_an_outage_of_all_daemons_silence_goes_on_where_it_was(small: Store, engine: Engine) -> None:
    rule = Rule.model_validate({"name": "a", "silence": "1h", "every": "100ms", "webhook": "http://127.0.0.1:1/"})
    before = datetime.now(UTC) - timedelta(hours=9)
    async with small.alerts.held() as held:
        assert held
        await held.save(State("a", False, before, 600, before))
    alerts = alerting.Alerting([rule], small.alerts, engine, Metrics(), "", lambda: False)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(alerts.run())
        async with asyncio.timeout(20):
            while (state := (await small.alerts.all())["a"]).checked_at == before:
                await asyncio.sleep(0.02)
        running.cancel()
    assert not state.firing
    assert 600 <= (state.value or 0) < 3600


async def test_a_new_pattern_of_errors_fires_and_a_known_one_does_not(
    start_daemon: Starter, receiver: Receiver
) -> None:
    rule = receiver.rule("new", new_pattern=True, window="10m")
    daemon = await start_daemon(alerts=[rule])
    before = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    await send(daemon, *(f"disk {number} is full" for number in range(20)), timestamp=before)
    await send(daemon, *(f"disk {number} is full" for number in range(20, 40)))
    await send(daemon, "all is well now", level="INFO")
    async with asyncio.timeout(30):
        while (await states(daemon))["new"]["state"] != "ok":
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    assert not receiver.taken
    await send(daemon, "segmentation fault in worker 7")
    fired = await receiver.state("new", "firing")
    assert (fired["value"], fired["query"]) == (1, "level>=error")
    assert fired["patterns"][0]["example"] == "segmentation fault in worker 7"


async def states(daemon: RunningDaemon) -> dict[str, dict[str, Any]]:
    async with daemon.http.get("/alerts") as answer:
        assert answer.status == 200
        return {each["name"]: each for each in await answer.json()}


async def test_of_two_daemons_one_tells_and_the_other_goes_on(
    start_daemon: Starter, receiver: Receiver, sql: asyncpg.Connection
) -> None:
    rules = [
        receiver.rule("errors", threshold=2, window="1h"),
        receiver.rule("none", query="service=none", silence="1s"),
    ]
    first = await start_daemon(alerts=rules)
    second = await start_daemon(alerts=rules)
    await send(first, "one")
    await send(second, "two")
    await receiver.state("errors", "firing")
    await receiver.state("none", "firing")
    holder = (
        "select pid from pg_locks where locktype = 'advisory' and granted and objid = 4294967288"
        " and database = (select oid from pg_database where datname = current_database())"
    )
    (pid,) = [row["pid"] for row in await sql.fetch(holder)]
    await sql.execute("select pg_terminate_backend($1)", pid)  # the connection of who holds them ends
    checked = (await states(second))["errors"]["checked_at"]
    async with asyncio.timeout(30):
        while [row["pid"] for row in await sql.fetch(holder)] in ([], [pid]):
            await asyncio.sleep(0.02)
        while (await states(second))["errors"]["checked_at"] <= checked:
            await asyncio.sleep(0.02)
    assert sorted(each["name"] for each in receiver.taken) == ["errors", "none"]  # once each
    assert {each["state"] for each in (await states(second)).values()} == {"firing"}


async def test_what_was_not_told_is_told_by_the_next_daemon(start_daemon: Starter, sql: asyncpg.Connection) -> None:
    late = Receiver()
    async with listening(late) as port:
        pass  # nobody is there any more
    daemon = await start_daemon(alerts=[late.rule("errors", threshold=1, window="1s")])
    await send(daemon, "one")
    async with asyncio.timeout(30):
        while (await states(daemon))["errors"]["waiting"] < 2:
            await asyncio.sleep(0.02)
    assert await daemon.metric("logagg_alert_messages_waiting", alert="errors") == 2
    waiting = json.loads(await sql.fetchval("select waiting from alerts"))
    assert [each["state"] for each in waiting] == ["firing", "resolved"]
    async with listening(late, port):
        await late.state("errors", "resolved")
        async with asyncio.timeout(30):
            while (await states(daemon))["errors"]["waiting"]:
                await asyncio.sleep(0.02)
    assert [each["id"] for each in late.taken] == [each["id"] for each in waiting]
    assert await daemon.metric("logagg_alert_messages_waiting", alert="errors") == 0


async def test_what_waits_is_shown_before_a_rule_can_be_evaluated(small: Store, engine: Engine) -> None:
    rule = Rule.model_validate({"name": "a", "silence": "1h", "webhook": "http://127.0.0.1:1/"})
    now, metrics = datetime.now(UTC), Metrics()
    async with small.alerts.held() as held:
        assert held
        await held.save(State("a", True, now, None, now, ({"id": "1"}, {"id": "2"})))
    behind = asyncio.Event()  # records wait in the journal

    def is_behind() -> bool:
        behind.set()
        return True

    alerts = alerting.Alerting([rule], small.alerts, engine, metrics, "", is_behind)
    running = asyncio.create_task(alerts.run())
    async with asyncio.timeout(20):
        await behind.wait()
    assert metrics.registry.get_sample_value("logagg_alert_messages_waiting", {"alert": "a"}) == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert metrics.registry.get_sample_value("logagg_alert_messages_waiting", {"alert": "a"}) is None


async def test_the_command(start_daemon: Starter, receiver: Receiver) -> None:
    none = await start_daemon()
    assert (await asked(none, "list")).stderr.startswith("there are no alerts")
    daemon = await start_daemon(
        alerts=[receiver.rule("errors", threshold=2, every="1h"), receiver.rule("broken", threshold=1, every="1h")]
    )
    async with asyncio.timeout(30):
        while any(each["state"] == "unknown" for each in (await states(daemon)).values()):
            await asyncio.sleep(0.02)
    header, *lines = (await asked(daemon, "list")).stdout.splitlines()
    assert header.split() == ["NAME", "STATE", "SINCE", "VALUE", "WAITING", "CONDITION", "QUERY"]
    assert [line.split()[:2] for line in lines] == [["errors", "ok"], ["broken", "ok"]]
    await send(daemon, "one", "two", "three")
    tested = await asked(daemon, "test", "errors")
    assert tested.exit_code == 0
    assert tested.stdout == "at least 2 records in 5m: it would fire: 3 records\nthe webhook took the test: 200\n"
    assert [(each["state"], each["value"], len(each["records"])) for each in receiver.taken] == [("test", 3, 3)]
    receiver.statuses = [503]
    refused = await asked(daemon, "test", "broken")
    assert (refused.exit_code, refused.stderr) == (2, "logagg: the webhook did not take the test: answered 503\n")
    unknown = await asked(daemon, "test", "no\nthing")
    assert unknown.stderr == "logagg: there is no alert 'no\\nthing'; there are: errors, broken\n"
    row = json.loads((await asked(daemon, "list", "-o", "json")).stdout)[0]
    assert (row["name"], row["state"], row["waiting"]) == ("errors", "ok", 0)


async def test_nothing_is_silent_while_records_wait_in_the_journal(engine: Engine, small: Store) -> None:
    rule = Rule.model_validate({"name": "backup", "silence": "1h", "webhook": "http://127.0.0.1:1/"})
    waiting = True
    alerts = alerting.Alerting([rule], small.alerts, engine, Metrics(), "", lambda: waiting)
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    state = State("backup", False, hour_ago, None, hour_ago)
    assert await alerts.evaluate(rule, state) is None
    waiting = False
    assert await alerts.evaluate(rule, state) == alerting.Found(True, None)


async def test_what_waits_is_bounded(small: Store, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerting, "MOST_WAITING", 3)
    rule = Rule.model_validate({"name": "a", "threshold": 1, "webhook": "http://127.0.0.1:1/"})
    metrics = Metrics()
    alerts = alerting.Alerting([rule], small.alerts, engine, metrics, "", lambda: False)
    now = datetime.now(UTC)
    async with small.alerts.held() as held, small.alerts.held() as other:
        assert held
        assert other is None
        one = alerting._One(alerts, held, rule, State("a", False, now, 0, now))
        for firing in (True, True, False, True, False, False):
            await one._settle(alerting.Found(firing, 1))
    state = (await small.alerts.all())["a"]
    assert [each["state"] for each in state.waiting] == ["resolved", "firing", "resolved"]
    assert metrics.registry.get_sample_value("logagg_alert_failures_total", {"alert": "a", "what": "webhook"}) == 1
    async with small.alerts.held() as held:
        assert held
        assert await held.load(["b"]) == {}  # the settings have no such rule any more


async def test_rules_that_change_are_taken_over_and_go_on(small: Store, engine: Engine, receiver: Receiver) -> None:
    def rules(*names: str) -> list[Rule]:
        return [Rule.model_validate(receiver.rule(name, silence="1s")) for name in names]

    alerts = alerting.Alerting([], small.alerts, engine, Metrics(), "", lambda: False)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(alerts.run())
        await asyncio.sleep(0.05)
        alerts.take(rules("a"))
        await receiver.state("a", "firing")
        alerts.take(rules("a", "b"))
        await receiver.state("b", "firing")
        async with asyncio.timeout(20):
            while (await small.alerts.all())["b"].waiting:  # what is not known to be taken is told again
                await asyncio.sleep(0.02)
        alerts.take(rules("b"))
        async with asyncio.timeout(20):
            while (await small.alerts.all()).keys() != {"b"}:
                await asyncio.sleep(0.02)
        running.cancel()
    assert [(each["name"], each["state"]) for each in receiver.taken] == [("a", "firing"), ("b", "firing")]


async def test_a_field_that_is_no_column_but_reads_like_one_is_told_at_the_start_and_of_new_rules(
    small: Store, engine: Engine
) -> None:
    def rule(query: str) -> Rule:
        return Rule.model_validate({"name": "a", "threshold": 1, "webhook": "http://127.0.0.1:1/", "query": query})

    with capture_logs() as lines:
        alerts = alerting.Alerting([rule("servce=shop")], small.alerts, engine, Metrics(), "", lambda: False)
        alerts.take([rule("usr.id=4"), rule("hsot=web")])
    told = [(line["log_level"], line["alert"], line["hint"].split("; ")[1]) for line in lines]
    assert told == [("warning", "a", f"did you mean {column}?") for column in ("service", "host")]


async def test_why_a_webhook_takes_nothing(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tried(url: str) -> str:
        rule = Rule.model_validate({"name": "a", "threshold": 1, "webhook": url})
        async with aiohttp.ClientSession() as http:
            with pytest.raises(NotTaken) as error:
                await post(http, rule, {})
        return str(error.value)

    assert await tried("http://127.0.0.1:1/secret") == "cannot connect: Connection refused"
    assert (await tried(receiver.url.replace("http:", "https:"))).startswith("TLS fails: ")
    monkeypatch.setattr("logagg.collector.alerting_webhook.PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert await tried(f"http://127.0.0.1:{silent.getsockname()[1]}/secret") == "no answer within 0.05 s"
