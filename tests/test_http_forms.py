"""The mechanism under all routes: what does not fit is refused as FastAPI refuses it, and nothing else gets out."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator

from logagg.protocols.record import LEVELS
from logagg.query.bodies import BODIES, Bodies
from logagg.query.errors import QueryError, QueryLimit
from logagg.query.http import RAW, Route, dumps, make_app, preferred, reply
from logagg.query.kinds import Interval, Level, Time
from logagg.query.models import LogEntry, Seed1Log
from logagg.sinks.errors import StoreUnavailable

Client = TestClient[web.Request, web.Application]


class Number(BaseModel):
    limit: int = Field(100, ge=1, le=1000)
    start_time: Time | None = None
    level: Level | None = None


class Odd(BaseModel):
    odd: int

    @field_validator("odd")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("not odd")
        return value


async def echo(request: web.Request, query: Any, body: Any) -> web.Response:
    raw = request.get(RAW)
    return reply({"query": query and query.model_dump(), "raw": raw and raw.decode(errors="replace")})


def raising(error: Exception) -> Any:
    async def handler(request: web.Request, query: Any, body: Any) -> web.Response:
        raise error

    return handler


ROUTES: list[Route[Any, Any]] = [
    Route("GET", "/number", "", "t", echo, query=Number),
    Route("POST", "/log", "", "t", echo, body=Seed1Log),
    Route("POST", "/entry", "", "t", echo, body=LogEntry),
    Route("POST", "/entries", "", "t", echo, body=list[LogEntry]),
    Route("POST", "/odd", "", "t", echo, body=Odd),
    Route("GET", "/wrong", "", "t", raising(QueryError("no such column"))),
    Route("GET", "/syntax", "", "t", raising(QueryError("expected a word", "a (", 3))),
    Route("GET", "/limit", "", "t", raising(QueryLimit("query took more than 30 s"))),
    Route("GET", "/away", "", "t", raising(StoreUnavailable("the store is away"))),
    Route("GET", "/bug", "", "t", raising(RuntimeError("secret"))),
    Route("GET", "/busy", "", "t", raising(web.HTTPTooManyRequests(headers={"Retry-After": "7"}))),
]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    app = make_app(ROUTES)
    app[BODIES] = Bodies(limit=200_000, limit_of_all=200_000, patience=5.0)
    async with TestClient(TestServer(app)) as client:
        yield client


async def detail(client: Client, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    answer = await client.request(method, path, data=body)
    text = await answer.json()
    assert answer.content_type == "application/json"
    return answer.status, text.get("detail")


NOT_OBJECT = "Input should be a valid dictionary or object to extract fields from"
SEED1 = "'INFO', 'WARNING', 'ERROR' or 'DEBUG'"
SEED2 = "'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'"
TOO_BIG = "dates after 9999 are not supported as unix timestamps"


def problem(kind: str, loc: list[str | int], msg: str, given: Any, **ctx: Any) -> dict[str, Any]:
    return {"type": kind, "loc": loc, "msg": msg, "input": given} | ({"ctx": ctx} if ctx else {})


def missing(*loc: str | int, given: Any = None) -> dict[str, Any]:
    return problem("missing", list(loc), "Field required", given)


def no_json(position: int, error: str) -> dict[str, Any]:
    return problem("json_invalid", ["body", position], "JSON decode error", {}, error=error)


BIG_NUMBER = f"Input should be a valid datetime, {TOO_BIG}"
NOT_INT = "Input should be a valid integer, unable to parse string as an integer"
NOT_TIME = "Input should be a valid datetime or date, "
SHORT = "input is too short"


@pytest.mark.parametrize(
    ("name", "value", "kind", "msg", "ctx"),
    [
        ("limit", "0", "greater_than_equal", "Input should be greater than or equal to 1", {"ge": 1}),
        ("limit", "1001", "less_than_equal", "Input should be less than or equal to 1000", {"le": 1000}),
        ("limit", "1.5", "int_parsing", NOT_INT, {}),
        ("limit", "", "int_parsing", NOT_INT, {}),
        ("limit=5&limit", "x", "int_parsing", NOT_INT, {}),
        ("start_time", "abc", "datetime_from_date_parsing", NOT_TIME + SHORT, {"error": SHORT}),
        ("start_time", "", "datetime_from_date_parsing", NOT_TIME + SHORT, {"error": SHORT}),
        ("start_time", "9" * 17, "datetime_from_date_parsing", NOT_TIME + TOO_BIG, {"error": TOO_BIG}),
    ],
)
async def test_a_bad_parameter_is_refused_as_fastapi_does(
    client: Client, name: str, value: str, kind: str, msg: str, ctx: dict[str, Any]
) -> None:
    expected = problem(kind, ["query", name.rpartition("&")[2]], msg, value, **ctx)
    assert await detail(client, "GET", f"/number?{name}={value}") == (422, [expected])


async def test_a_bad_level_names_the_levels(client: Client) -> None:
    status, [each] = await detail(client, "GET", "/number?level=info")
    assert (status, each["type"], each["loc"], each["input"]) == (422, "enum", ["query", "level"], "info")
    assert each["msg"] == f"Input should be {each['ctx']['expected']}"
    assert all(name in each["msg"] for name in LEVELS)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/log", b"", [missing("body")]),
        ("/log", b"null", [problem("model_attributes_type", ["body"], NOT_OBJECT, None)]),
        ("/log", b"[1]", [problem("model_attributes_type", ["body"], NOT_OBJECT, [1])]),
        ("/log", b'"x"', [problem("model_attributes_type", ["body"], NOT_OBJECT, "x")]),
        ("/log", b"{", [no_json(1, "Expecting property name enclosed in double quotes")]),
        ("/log", b'{"a": tru}', [no_json(6, "Expecting value")]),
        ("/log", b"{}", [missing("body", name, given={}) for name in ("timestamp", "level", "message", "service")]),
        ("/log", b'{"timestamp":1e300,"level":"info","message":5,"service":null}', [
            problem("datetime_parsing", ["body", "timestamp"], BIG_NUMBER, 1e300, error=TOO_BIG),
            problem("enum", ["body", "level"], f"Input should be {SEED1}", "info", expected=SEED1),
            problem("string_type", ["body", "message"], "Input should be a valid string", 5),
            problem("string_type", ["body", "service"], "Input should be a valid string", None),
        ]),
        ("/entry", b'{"level":"NOTICE","message":"m","metadata":[]}', [
            problem("enum", ["body", "level"], f"Input should be {SEED2}", "NOTICE", expected=SEED2),
            missing("body", "source", given={"level": "NOTICE", "message": "m", "metadata": []}),
            problem("dict_type", ["body", "metadata"], "Input should be a valid dictionary", []),
        ]),
        ("/entries", b"", [missing("body")]),
        ("/entries", b"{}", [problem("list_type", ["body"], "Input should be a valid list", {})]),
        ("/entries", b"[1]", [problem("model_attributes_type", ["body", 0], NOT_OBJECT, 1)]),
        ("/entries", b'[{"level":"INFO","message":"","source":"s"},{"level":"INFO","message":""}]',
            [missing("body", 1, "source", given={"level": "INFO", "message": ""})]),
        ("/odd", b'{"odd":2}', [problem("value_error", ["body", "odd"], "Value error, not odd", 2, error={})]),
    ],
)  # fmt: skip
async def test_a_bad_body_is_refused_as_fastapi_does(client: Client, path: str, body: bytes, expected: object) -> None:
    assert await detail(client, "POST", path, body) == (422, expected)


@pytest.mark.parametrize("value", ["[" * 3000, "[" * 100_000, '{"a":' * 500 + "1" + "}" * 500])
async def test_depth_never_breaks_the_service(client: Client, value: str) -> None:
    status, found = await detail(client, "POST", "/log", value.encode())
    assert status in {400, 422}
    assert found


@pytest.mark.parametrize("text", [rb"\ud800", rb"\u0000", b"\xff", b"\x01"])
async def test_a_body_with_something_to_replace_is_taken_and_kept(client: Client, text: bytes) -> None:
    body = b'{"timestamp":0,"level":"INFO","service":"s","message":"a' + text + b'"}'
    answer = await client.post("/log", data=body)
    assert answer.status == 200
    kept = (await answer.json())["raw"]
    assert kept == (None if text == b"\x01" else body.decode(errors="replace"))


async def test_a_body_without_anything_odd_is_not_kept(client: Client) -> None:
    answer = await client.post("/log", json={"timestamp": 0, "level": "INFO", "service": "s", "message": "ä"})
    assert (await answer.json())["raw"] is None


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/wrong", 400, "no such column"),
        ("/limit", 503, "query took more than 30 s"),
        ("/away", 503, "the store is away"),
        ("/nope", 404, "Not Found"),
        ("/log", 405, "Method Not Allowed"),
        ("/busy", 429, "Too Many Requests"),
    ],
)
async def test_a_refusal_is_one_text(client: Client, path: str, status: int, expected: str) -> None:
    assert await detail(client, "GET", path) == (status, expected)


async def test_bad_syntax_points_at_the_place(client: Client) -> None:
    status, found = await detail(client, "GET", "/syntax?q=a%20(")
    ctx = {"position": 3, "error": "expected a word"}
    assert (status, found) == (
        422,
        [problem("query_syntax", ["query", "q"], "expected a word\n  a (\n     ^", "a (", **ctx)],
    )


async def test_headers_of_refusals(client: Client) -> None:
    assert (await client.put("/log")).headers["Allow"] == "POST"
    assert {"GET", "HEAD"} == set((await client.post("/number")).headers["Allow"].split(","))
    assert (await client.get("/busy")).headers["Retry-After"] == "7"
    assert int((await client.get("/limit")).headers["Retry-After"]) > 0
    assert (await client.get("/away")).headers["X-Content-Type-Options"] == "nosniff"


async def test_a_body_too_long_is_refused_with_the_numbers(client: Client) -> None:
    status, found = await detail(client, "POST", "/log", b"x" * 300_000)
    assert status == 413
    assert "200000" in found


async def test_an_error_of_ours_is_logged_and_tells_nothing(client: Client) -> None:
    with structlog.testing.capture_logs() as logs:
        assert await detail(client, "GET", "/bug") == (500, "Internal Server Error")
    assert [(each["log_level"], each["path"]) for each in logs] == [("error", "/bug")]


async def test_head_answers_as_get_without_body(client: Client) -> None:
    whole, head = await client.get("/number"), await client.head("/number")
    assert (head.status, head.headers["Content-Length"]) == (200, whole.headers["Content-Length"])
    assert await head.read() == b""


@pytest.mark.parametrize(
    "url", ["/number?start_time=%FF", "/number?start_time=%00", "/number?level=%ED%A0%80", "/%FF", "/number?%00=%00"]
)
async def test_odd_urls_get_json(client: Client, url: str) -> None:
    answer = await client.get(url)
    assert answer.status in {200, 404, 422}
    await answer.json()


async def test_bytes_that_are_no_http_do_not_stop_the_service(client: Client) -> None:
    assert client.port
    for data in (b"\x16\x03\x01\r\n\r\n", b"GET /number?start_time=\xff HTTP/1.1\r\nHost: x\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(data)
        assert (await reader.readline()).split()[1] in {b"400", b"422"}
        writer.close()
        await writer.wait_closed()
    assert (await client.get("/number")).status == 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-20T10:00:00", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20T10:00:00Z", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20T10:00:00+02:00", datetime(2026, 11, 20, 8, tzinfo=UTC)),
        ("2026-11-20T10:00:00 02:00", datetime(2026, 11, 20, 8, tzinfo=UTC)),
        ("2026-11-20t10:00:00.5 0200", datetime(2026, 11, 20, 8, 0, 0, 500000, tzinfo=UTC)),
        ("2026-11-20 10:00", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("1795168800", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("1795168800000", datetime(2026, 11, 20, 10, tzinfo=UTC)),
    ],
)
def test_times_are_taken_in_every_form(text: str, expected: datetime) -> None:
    found = TypeAdapter[datetime](Time).validate_python(text)
    assert found == expected
    assert found.tzinfo is UTC


def test_a_time_out_of_range_in_utc_does_not_fit() -> None:
    with pytest.raises(ValidationError, match="out of the years"):
        TypeAdapter[datetime](Time).validate_python("9999-12-31T23:59:59-12:00")


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("30", 30), ("1s", 1), ("2h", 7200), ("1d", 86400), ("1w", 604800)]
)
def test_intervals(text: str, seconds: int) -> None:
    assert TypeAdapter[Any](Interval).validate_python(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "-5m", "5 m", "5x", "m", "1.5h", "9" * 40, "٣"])
def test_what_is_no_interval(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[Any](Interval).validate_python(text)


def test_the_levels_are_those_of_a_record() -> None:
    assert tuple(Level) == LEVELS


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", "text/html"),
        ("text/html;q=0.5, application/json", "application/json"),
        ("application/json;q=0.1, text/*", "text/html"),
        ("TEXT/HTML ; charset=utf-8 ; q=1.0", "text/html"),
        ("application/json;q=0, */*", "text/html"),
        ("image/png", "application/json"),
        (",,;q=;;", "application/json"),
    ],
)
def test_the_better_liked_type_is_preferred(accept: str, expected: str) -> None:
    assert preferred(accept, ("application/json", "text/html")) == expected


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_accept_header_has_an_answer(accept: str) -> None:
    assert preferred(accept, ("a/b", "c/d")) in {"a/b", "c/d"}


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"t": datetime(2026, 1, 2, 3, 4, 5, 60, tzinfo=UTC)}, {"t": "2026-01-02T03:04:05.000060Z"}),
        (
            {"t": datetime(2026, 1, 2, tzinfo=UTC), "big": 1 << 70, "e": Colour.RED},
            {"t": "2026-01-02T00:00:00Z", "big": 1 << 70, "e": "red"},
        ),
        ({"half": "\ud800"}, {"half": "\ud800"}),
    ],
)  # fmt: skip
def test_everything_can_be_written(value: object, expected: object) -> None:
    assert json.loads(dumps(value)) == expected


def test_deep_values_can_be_written() -> None:
    value: Any = "x"
    for _ in range(500):
        value = [value]
    assert json.loads(dumps({"a": value})) == {"a": value}


def test_a_log_of_seed_1_keeps_what_it_does_not_know() -> None:
    given = {
        "timestamp": "2026-11-20T10:00:00+02:00",
        "level": "ERROR",
        "message": "m",
        "service": "s",
        "host": "h",
        "x": {"y": None},
    }
    made = Seed1Log.model_validate(given).as_object()
    assert made == given | {"timestamp": "2026-11-20T08:00:00+00:00"}
    assert type(made["level"]) is str


def test_an_entry_of_seed_2_keeps_its_metadata() -> None:
    entry = LogEntry.model_validate(
        {"level": "INFO", "message": "m", "source": "s", "metadata": {"a": None, "b": [1]}, "x": 1}
    )
    assert entry.as_object() == {"level": "INFO", "message": "m", "source": "s", "metadata": {"a": None, "b": [1]}}
    assert type(entry.as_object()["level"]) is str
