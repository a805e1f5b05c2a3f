"""The reading routes on a real store: the shapes of the seeds, and what ours add."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import TypeAdapter
from yarl import URL

from logagg.protocols.record import LEVELS, Record
from logagg.query.bodies import BODIES, Bodies
from logagg.query.engine import Engine
from logagg.query.http import Route, make_app
from logagg.query.routes_logs import log_routes
from logagg.sinks.store import Store

Client = TestClient[web.Request, web.Application]

T0 = datetime(2026, 11, 20, 10, tzinfo=UTC)
ROUTES: dict[tuple[str, str], Route[Any, Any]] = {}


def record(seconds: float, message: str = "m", level: str = "INFO", **fields: Any) -> Record:
    attributes = fields.pop("attributes", None)
    values: dict[str, Any] = {
        "timestamp": T0 + timedelta(seconds=seconds),
        "received_at": T0 + timedelta(days=1),
        "severity": LEVELS.index(level),
        "facility": None,
        "environment": None,
        "host": None,
        "service": "shop",
        "source": "10.0.0.1",
        "message": message,
        "attributes": None if attributes is None else orjson.dumps(attributes).decode(),
        "trace_id": None,
        "span_id": None,
        "raw": None,
    }
    return Record(**{**values, **fields})


@pytest.fixture
async def client(store: Store) -> AsyncIterator[Client]:
    engine = Engine(store, timeout=30)
    routes = log_routes(engine)
    ROUTES.update({(route.method, route.path): route for route in routes})
    app = make_app(routes)
    app[BODIES] = Bodies(limit=1 << 20, limit_of_all=1 << 20, patience=5.0)
    async with TestClient(TestServer(app)) as client:
        yield client
    engine.close()


async def get(client: Client, path: str, **parameters: Any) -> Any:
    """Return the answer of a GET, which must have the form that the document promises."""
    answer = await client.get(path, params=parameters)
    text = await answer.text()
    assert answer.status == 200, text
    assert answer.content_type == "application/json"
    form: Any = ROUTES["GET", path].response
    TypeAdapter[Any](form).validate_json(text, extra="forbid")
    return orjson.loads(text)


async def messages(client: Client, path: str = "/logs", **parameters: Any) -> list[str]:
    found = await get(client, path, **parameters)
    return [each["message"] for each in (found["logs"] if path == "/logs/search" else found)]


async def refusal(client: Client, path: str, **parameters: Any) -> tuple[int, Any]:
    answer = await client.get(path, params=parameters)
    return answer.status, (await answer.json())["detail"]


# Seed 1


async def test_records_come_newest_first_as_a_bare_array(client: Client, store: Store) -> None:
    await store.write([record(2, "b"), record(1, "a"), record(3, "c")])
    found = await get(client, "/logs")
    assert [each["message"] for each in found] == ["c", "b", "a"]
    first = found[0]
    assert {"id", "timestamp", "level", "service", "message"} <= first.keys()
    assert (first["timestamp"], first["received_at"]) == ("2026-11-20T10:00:03Z", "2026-11-21T10:00:00Z")
    assert first["id"] < 2**53


async def test_a_record_has_every_key_of_the_contract(client: Client, store: Store) -> None:
    await store.write(
        [
            record(
                0.25, "hello", "NOTICE", facility=16, environment="prod", host="web-1", service="api", source="s",
                attributes={"a": {"b": [1, None, "ü"]}}, trace_id="t" * 32, span_id="s" * 16,
            )
        ]
    )  # fmt: skip
    [found] = await get(client, "/logs")
    assert found.pop("id") > 0
    assert found == {
        "timestamp": "2026-11-20T10:00:00.250000Z",
        "received_at": "2026-11-21T10:00:00Z",
        "level": "NOTICE",
        "service": "api",
        "host": "web-1",
        "environment": "prod",
        "source": "s",
        "facility": 16,
        "message": "hello",
        "attributes": {"a": {"b": [1, None, "ü"]}},
        "trace_id": "t" * 32,
        "span_id": "s" * 16,
    }


async def test_nothing_stored_is_an_empty_array(client: Client) -> None:
    assert await get(client, "/logs") == []
    assert await get(client, "/logs/aggregations") == []
    assert await get(client, "/logs/patterns") == []
    assert (await get(client, "/logs/histogram"))["bins"] == []
    assert (await get(client, "/logs/search"))["logs"] == []


FILTERS: list[tuple[dict[str, str], str]] = [
    ({"start_time": "2026-11-20T10:00:01Z"}, "cb"), ({"end_time": "2026-11-20T10:00:01"}, "ba"),
    ({"start_time": "2026-11-20T10:00:01", "end_time": "2026-11-20T10:00:01Z"}, "b"),
    ({"start_time": "2026-11-20T12:00:01+02:00", "end_time": "1795168801000"}, "b"),
    ({"start_time": "2026-11-20"}, "cba"), ({"end_time": "2026-11-20"}, ""),
    ({"service": "shop"}, "cb"), ({"service": "SHOP"}, ""), ({"level": "ERROR"}, "b"), ({"level": "NOTICE"}, ""),
    ({"search": "card declined"}, "b"), ({"search": "DECLINED card"}, "b"), ({"search": "declined (card"}, "b"),
    ({"search": ""}, "cba"), ({"q": "service:shop level>=error"}, "b"),
    ({"q": "declined or parcel", "service": "mail"}, "a"),
    ({"host": "h1"}, "c"), ({"environment": "prod"}, "a"), ({"source": "10.9.9.9"}, "a"),
    ({"order": "oldest"}, "abc"), ({"limit": "2"}, "cb"),
]  # fmt: skip


async def test_filters(client: Client, store: Store) -> None:
    await store.write(
        [
            record(0, "a parcel", service="mail", environment="prod", source="10.9.9.9"),
            record(1, "b card was declined", "ERROR"),
            record(2, "c", "DEBUG", host="h1"),
        ]
    )
    for parameters, expected in FILTERS:
        assert "".join(each[0] for each in await messages(client, **parameters)) == expected, parameters


async def test_a_plus_that_became_a_space_is_forgiven(client: Client, store: Store) -> None:
    await store.write([record(0, "a"), record(2, "b")])
    answer = await client.get("/logs?start_time=2026-11-20T12:00:01+02:00")
    assert [each["message"] for each in await answer.json()] == ["b"]


MISFITS = [
    ("level", "error"), ("level", "FATAL"), ("level", ""), ("start_time", "yesterday"), ("end_time", "2026-13-01"),
    ("limit", "0"), ("limit", "10001"), ("limit", "many"), ("order", "random"),
]  # fmt: skip


async def test_what_does_not_fit_is_422_at_its_place(client: Client) -> None:
    for parameter, value in MISFITS:
        status, [problem] = await refusal(client, "/logs", **{parameter: value})
        assert (status, problem["loc"], problem["input"]) == (422, ["query", parameter], value)
        assert problem["type"]
        assert problem["msg"]


MISNAMED = [
    ("/logs", "offset", "cursor"),
    ("/logs", "query", "q"), ("/logs", "filter", "q"), ("/logs", "since", "start_time"),
    ("/logs", "from", "start_time"), ("/logs", "until", "end_time"), ("/logs", "to", "end_time"),
    ("/logs", "size", "limit"), ("/logs", "count", "limit"), ("/logs", "Level", "level"),
    ("/logs", "startTime", "start_time"), ("/logs", "hosts", "host"),
    ("/logs/search", "filter", "q"), ("/logs/aggregations", "enviroment", "environment"),
    ("/logs/histogram", "start", "start_time"), ("/logs/patterns", "end", "end_time"),
    ("/logs/patterns", "hour", "hours"), ("/logs/patterns/members", "since", "start_time"),
    ("/logs/1/context", "befor", "before"),
]  # fmt: skip
#: What a client of a seed sends, and names that say nothing by their `_`: all are answered.
SENT = [
    ("/logs", ["start_time", "end_time", "service", "level", "search"]),
    ("/logs/aggregations", []),
    ("/logs/search", ["query", "level", "source", "service", "start_time", "end_time", "limit", "offset"]),
    ("/logs/patterns", ["hours"]),
    ("/logs", ["_", "_service"]),
    ("/logs/1", ["_"]),
]
#: What is none, and like none: ignored, all records would be the answer.
UNKNOWN = [
    ("/logs", ["svc", "app", "tag", "status", "state", "resource", "user", "severity", "page", "x" * 1000]),
    ("/logs/search", ["svc"]), ("/logs/aggregations", ["svc"]), ("/logs/patterns", ["svc"]),
    ("/logs/histogram", ["limit", "size", "count", "cursor"]), ("/logs/1/context", ["query", "since"]),
    ("/logs/1", ["service"]), ("/logs/patterns/members", ["svc"]),
]  # fmt: skip
VALUES = {
    "start_time": "2026-11-20",
    "end_time": "2026-11-20",
    "level": "INFO",
    "limit": "5",
    "offset": "0",
    "hours": "1",
}


async def test_a_parameter_that_is_meant_for_another_is_refused_and_told_so(client: Client, store: Store) -> None:
    await store.write([record(0)])
    for path, name, meant in MISNAMED:
        status, [problem] = await refusal(client, path, **{name: "1"})
        assert (status, problem["type"], problem["loc"]) == (422, "unknown_parameter", ["query", name])
        assert problem["msg"] == f"there is no parameter `{name}`: did you mean {meant}?"
    answer = await client.post("/logs/search", json={"filter": "x", "since": 1, "query": "m"})
    problems = (await answer.json())["detail"]
    assert [each["loc"] for each in problems] == [["body", "filter"], ["body", "since"]]


async def test_an_unknown_parameter_is_refused_with_those_there_are(client: Client, store: Store) -> None:
    await store.write([record(0)])
    for path, names in UNKNOWN:
        status, problems = await refusal(client, path, **dict.fromkeys(names, "1"))
        assert status == 422
        assert [(each["type"], each["loc"]) for each in problems] == [
            ("unknown_parameter", ["query", name]) for name in names
        ]
    [problem] = (await refusal(client, "/logs/1/context", svc="shop"))[1]
    known = "stats, before, after"
    assert problem["msg"] == f"there is no parameter `svc`; there are: {known}"
    assert problem["ctx"] == {"name": "svc", "known": known}


async def test_what_is_unknown_is_refused_of_a_body_and_of_the_address_with_it(client: Client) -> None:
    answer = await client.post("/logs/search", json={"foo": "x", "_": 1})
    [problem] = (await answer.json())["detail"]
    assert (answer.status, problem["loc"]) == (422, ["body", "foo"])
    answer = await client.post("/logs/search?service=shop", json={})
    [problem] = (await answer.json())["detail"]
    assert (answer.status, problem["loc"]) == (422, ["query", "service"])
    assert problem["msg"] == "there is no parameter `service`; there are: none"
    answer = await client.post("/logs/search", json={f"key{n}": n for n in range(1000)})
    assert (answer.status, len((await answer.json())["detail"])) == (422, 20)  # so many are not all told


async def test_what_clients_of_the_seeds_send_is_answered(client: Client, store: Store) -> None:
    await store.write([record(0)])
    [found] = await get(client, "/logs")
    for path, names in SENT:
        url = re.sub("/1(?=/|$)", f"/{found['id']}", path)
        answer = await client.get(url, params={name: VALUES.get(name, "x") for name in names})
        assert answer.status == 200, (path, names, await answer.text())
    sent = {name: VALUES.get(name, "x") for name in ("query", "source", "service", "start_time", "end_time")}
    answer = await client.post("/logs/search", json=sent | {"level": None, "limit": 5, "offset": 0})
    assert answer.status == 200


async def test_a_bad_query_points_at_the_place(client: Client) -> None:
    for path in ("/logs", "/logs/search", "/logs/aggregations", "/logs/histogram", "/logs/patterns"):
        status, [problem] = await refusal(client, path, q='level>=error (a "b"')
        assert (status, problem["type"], problem["loc"]) == (422, "query_syntax", ["query", "q"])
        shown, caret = problem["msg"].splitlines()[-2:]
        assert shown.strip() == 'level>=error (a "b"'
        assert caret.strip() == "^"
        assert problem["ctx"]["position"] == 13


async def test_a_query_in_a_body_is_refused_there(client: Client) -> None:
    answer = await client.post("/logs/search", json={"q": "("})
    [problem] = (await answer.json())["detail"]
    assert (answer.status, problem["loc"]) == (422, ["body", "q"])


async def test_pages_lose_and_repeat_nothing(client: Client, store: Store) -> None:
    await store.write([record(at // 3, f"é{at}") for at in range(10)])
    seen: list[str] = []
    url: str | None = "/logs?limit=4&q=service:shop&start_time=2026-11-20T10:00:00%2B00:00"
    while url:
        answer = await client.get(url)
        seen += [each["message"] for each in await answer.json()]
        await store.write([record(50, "late")])  # newer than the first page, so on none of the others
        link = answer.links.get("next")
        following = URL(link["url"]) if link else None
        assert following is None or following.query["q"] == "service:shop"
        url = str(following.relative()) if following else None
    assert seen == [f"é{at}" for at in reversed(range(10))]


async def test_the_link_leads_back_to_the_host_that_was_asked(client: Client, store: Store) -> None:
    await store.write([record(0), record(1)])
    answer = await client.get("/logs?limit=1", headers={"Host": "logs.example:81"})
    assert answer.headers["Link"].startswith("<http://logs.example:81/logs?limit=1&cursor=")
    assert answer.headers["Link"].endswith('>; rel="next"')
    assert "Link" not in (await client.get("/logs?limit=2")).headers


async def test_a_cursor_of_nobody_is_refused(client: Client) -> None:
    for cursor in ("x", "", "\0", "9" * 400):
        status, detail = await refusal(client, "/logs", cursor=cursor)
        assert status == 400
        assert "cursor" in detail


async def test_counts_by_service_and_level_over_everything(client: Client, store: Store) -> None:
    await store.write([record(0), record(1), record(2, level="ERROR"), record(3, service=None)])
    found = await get(client, "/logs/aggregations")
    assert found[0] == {"service": "shop", "level": "INFO", "count": 2}
    assert {"service": "shop", "level": "ERROR", "count": 1} in found
    assert {"service": None, "level": "INFO", "count": 1} in found
    assert len(found) == 3


async def test_counts_by_anything_of_what_matches(client: Client, store: Store) -> None:
    await store.write([record(at, host=f"h{at % 2}", level=("INFO", "ERROR")[at % 3 == 0]) for at in range(6)])
    answer = await client.get(
        "/logs/aggregations", params={"by": "host", "level": "INFO", "end_time": "2026-11-20T10:00:03Z"}
    )
    assert await answer.json() == [{"host": "h0", "count": 1}, {"host": "h1", "count": 1}]
    status, _ = await refusal(client, "/logs/aggregations", by="")
    assert status == 422


# Seed 2

ENTRY = ["timestamp", "level", "message", "source", "service", "trace_id", "span_id", "metadata"]


async def test_search_answers_in_the_shape_of_seed_2(client: Client, store: Store) -> None:
    await store.write([record(at, f"payment {at}", "CRITICAL", service=None) for at in range(3)])
    found = await get(client, "/logs/search", query="payment", limit=2)
    assert list(found) == ["logs", "total_count", "took_ms"]
    assert (found["total_count"], len(found["logs"])) == (3, 2)
    assert found["took_ms"] >= 0
    first = found["logs"][0]
    assert list(first)[: len(ENTRY)] == ENTRY
    assert [first[name] for name in ENTRY] == [
        "2026-11-20T10:00:02Z", "CRITICAL", "payment 2", "10.0.0.1", None, None, None, None,
    ]  # fmt: skip


async def test_search_by_post_is_search_by_get(client: Client, store: Store) -> None:
    await store.write([record(at, f"payment {at}", service=f"s{at % 2}") for at in range(6)])
    asked = {"query": "payment", "service": "s1", "start_time": "2026-11-20T10:00:00", "limit": 2, "offset": 1}
    answer = await client.post("/logs/search", json=asked)
    posted = await answer.json()
    got = await get(client, "/logs/search", **asked)
    assert [each["message"] for each in posted["logs"]] == ["payment 3", "payment 1"]
    assert (posted["logs"], posted["total_count"]) == (got["logs"], got["total_count"])
    everything = await client.post("/logs/search", json={})
    assert (await everything.json())["total_count"] == 6


async def test_limits_of_search(client: Client, store: Store) -> None:
    await store.write([record(at) for at in range(1003)])
    for limit, count in (("5000", 1000), ("0", 1), ("-3", 1), ("7", 7)):
        assert len((await get(client, "/logs/search", limit=limit))["logs"]) == count
    assert len((await get(client, "/logs/search"))["logs"]) == 100
    for body, where in (({"limit": 1001}, "limit"), ({"limit": 0}, "limit"), ({"offset": -1}, "offset")):
        answer = await client.post("/logs/search", json=body)
        assert answer.status == 422
        assert (await answer.json())["detail"][0]["loc"] == ["body", where]
    status, [problem] = await refusal(client, "/logs/search", offset="-1")
    assert (status, problem["loc"]) == (422, ["query", "offset"])
    beyond = await get(client, "/logs/search", offset="2000")
    assert (beyond["logs"], beyond["total_count"]) == ([], 1003)


METADATA: list[tuple[Any, Any]] = [
    ({"metadata": {"user": {"id": 1}, "none": None}}, {"user": {"id": 1}, "none": None}),
    ({"metadata": {}}, {}),
    ({"metadata": {"a": 1}, "logagg_note": "n"}, {"a": 1}),
    ({"metadata": {"a": 1}, "b": 2}, {"metadata": {"a": 1}, "b": 2}),
    ({"metadata": "text"}, {"metadata": "text"}),
    ({"a": 1}, {"a": 1}),
    (None, None),
]


async def test_metadata_comes_back_as_it_was(client: Client, store: Store) -> None:
    await store.write([record(-at, attributes=attributes) for at, (attributes, _) in enumerate(METADATA)])
    found = await get(client, "/logs/search")
    assert [each["metadata"] for each in found["logs"]] == [metadata for _, metadata in METADATA]


async def test_patterns_are_of_errors_of_the_last_hours_unless_asked_otherwise(client: Client, store: Store) -> None:
    now = (datetime.now(UTC) - T0).total_seconds()
    await store.write(
        [record(now - at, f"card {at} of user {at * 7} declined", "ERROR", service=f"s{at}") for at in range(1, 13)]
        + [record(now - 1, f"sent mail {at} to user {at}", "INFO") for at in range(20)]
        + [record(now - 7200, "disk full", "ALERT")]
        + [record(now - 90_000, "too old", "ERROR")]
    )
    found = await get(client, "/logs/patterns")
    assert [(each["count"], each["services"]) for each in found][1:] == [(1, ["shop"])]
    assert found[0]["count"] == 12
    assert len(found[0]["services"]) == 10
    assert "declined" in found[0]["pattern"]
    assert found[0]["first_seen"] < found[0]["last_seen"]
    assert len(await get(client, "/logs/patterns", hours=1)) == 1
    assert len(await get(client, "/logs/patterns", hours=48)) == 3
    assert len(await get(client, "/logs/patterns", limit=1)) == 1
    assert (await get(client, "/logs/patterns", q="mail"))[0]["count"] == 20
    assert [each["count"] for each in await get(client, "/logs/patterns", level="ALERT")] == [1]
    before = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    assert len(await get(client, "/logs/patterns", start_time=before)) == 3
    for hours in ("0", "x", "1000000"):
        assert (await refusal(client, "/logs/patterns", hours=hours))[0] == 422
    assert await get(client, "/logs/patterns", end_time="0001-01-01T01:00:00Z") == []


# Ours


async def test_the_histogram_counts_by_level(client: Client, store: Store) -> None:
    await store.write([record(at * 60, level=("INFO", "ERROR")[at == 2]) for at in (0, 0.5, 1, 2, 4)])
    found = await get(
        client, "/logs/histogram", interval="1m", start_time=T0.isoformat(), end_time="2026-11-20T10:04:59Z"
    )
    assert (found["start"], found["interval_seconds"], found["total"]) == ("2026-11-20T10:00:00Z", 60, 5)
    assert [each["total"] for each in found["bins"]] == [2, 1, 1, 0, 1]
    assert found["bins"][2] == {"start": "2026-11-20T10:02:00Z", "total": 1, "levels": {"ERROR": 1}}
    assert sum(each["total"] for each in (await get(client, "/logs/histogram"))["bins"]) == 5
    assert (await refusal(client, "/logs/histogram", interval="soon"))[0] == 422


ODD_TEXTS = ["\0", "\ufffe", "'; drop table logs; --", "%", "\\", "é" * 600, "\u202e", "*", '"', "(", "(" * 2000]


PATHS = ["/logs", "/logs/search", "/logs/aggregations", "/logs/histogram", "/logs/patterns"]
NAMES = [
    "q",
    "search",
    "query",
    "service",
    "host",
    "environment",
    "source",
    "level",
    "cursor",
    "by",
    "interval",
    "end_time",
]


async def test_no_text_breaks_a_route(client: Client, store: Store) -> None:
    await store.write([record(0, "a 'quoted' text", attributes={"k": "v"})])
    for path, name, text in product(PATHS, NAMES, ODD_TEXTS):
        answer = await client.get(path, params={name: text})
        body = await answer.json()
        assert answer.status in {200, 400, 422}, (path, name, text, body)
        assert answer.status == 200 or body["detail"]
    assert await messages(client) == ["a 'quoted' text"]


async def test_a_deep_record_does_not_cost_its_neighbours(client: Client, store: Store) -> None:
    deep: Any = 1
    for _ in range(600):
        deep = [deep]
    text = "[" * 600 + "1" + "]" * 600
    await store.write([record(0, "a"), record(1, "b")._replace(attributes=f'{{"deep":{text}}}'), record(2, "c")])
    answer = await client.get("/logs")
    found = orjson.loads(await answer.read())
    assert [each["message"] for each in found] == ["c", "b", "a"]
    assert found[1]["attributes"] == {"deep": deep}


async def test_ten_thousand_records_in_one_answer(client: Client, store: Store) -> None:
    await store.write([record(at / 1000, "x" * 400, attributes={"n": at}) for at in range(10_001)])
    answer = await client.get("/logs?limit=10000")
    assert len(await answer.json()) == 10_000
    assert "next" in answer.links


async def test_questions_of_many_at_once(client: Client, store: Store) -> None:
    await store.write([record(at) for at in range(100)])

    async def ask(at: int) -> Sequence[str]:
        return await messages(client, limit=at + 1)

    assert [len(found) for found in await asyncio.gather(*map(ask, range(30)))] == list(range(1, 31))
