"""The OpenAPI document of the whole daemon, and that it tells the truth."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logagg.tests.daemons import RunningDaemon

READING = {
    ("get", "/logs"), ("get", "/logs/search"), ("post", "/logs/search"), ("get", "/logs/aggregations"),
    ("get", "/logs/histogram"), ("get", "/logs/patterns"), ("get", "/logs/patterns/members"), ("get", "/logs/{id}"),
    ("get", "/logs/{id}/context"), ("get", "/"), ("get", "/health"), ("get", "/healthz"),
    ("get", "/readyz"), ("get", "/metrics"),
}  # fmt: skip
WRITING = {("post", "/logs"), ("post", "/logs/ingest"), ("post", "/logs/batch-ingest"), ("post", "/ingest")}


@pytest.fixture
async def document(daemon: RunningDaemon) -> dict[str, Any]:
    async with daemon.http.get("/openapi.json") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        found: dict[str, Any] = await answer.json()
        return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method, path): each for path, methods in document["paths"].items() for method, each in methods.items()}


def parameters(operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in operation["parameters"]}


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (each for name, each in value.items() if name == "$ref")
        yield from (found for each in value.values() for found in references(each))
    elif isinstance(value, list):
        yield from (found for each in value for found in references(each))


async def test_every_route_of_the_contract_is_there_and_says_what_it_is(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == version("logagg")
    assert operations(document).keys() >= READING | WRITING
    found = operations(document)
    assert len({each["operationId"] for each in found.values()}) == len(found)
    for each in found.values():
        assert each["summary"]
        assert each["tags"]
        assert "200" in each["responses"]
        assert all(answer["description"] for answer in each["responses"].values())


async def test_all_references_lead_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    found = {each.removeprefix("#/components/schemas/") for each in references(document)}
    assert found
    assert found <= schemas.keys()
    assert schemas.keys() <= found, "schemas that nothing refers to"


async def test_parameters_come_from_the_models(document: dict[str, Any]) -> None:
    logs = parameters(operations(document)["get", "/logs"])
    seed1 = {"start_time", "end_time", "service", "level", "search"}
    assert seed1 | {"q", "host", "environment", "source", "limit", "cursor", "order", "stats"} == logs.keys()
    assert not any(each["required"] for each in logs.values())
    assert (logs["limit"]["schema"]["minimum"], logs["limit"]["schema"]["maximum"]) == (1, 10_000)
    assert logs["limit"]["schema"]["default"] == 1000
    assert logs["limit"]["description"]


async def test_what_fits_a_route_and_what_it_answers(document: dict[str, Any]) -> None:
    found, schemas = operations(document), document["components"]["schemas"]
    assert found["post", "/logs"]["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Seed1Log"
    }
    assert set(schemas["Seed1Log"]["required"]) == {"timestamp", "level", "message", "service"}
    assert schemas["Seed1Log"]["additionalProperties"] is True
    batch = found["post", "/logs/batch-ingest"]["requestBody"]["content"]["application/json"]["schema"]
    assert batch == {"type": "array", "items": {"$ref": "#/components/schemas/LogEntry"}}
    assert set(schemas["LogEntry"]["required"]) == {"level", "message", "source"}
    assert set(schemas["SearchAnswer"]["required"]) == {"logs", "total_count", "took_ms"}
    assert {"200", "400", "422", "503"} <= found["get", "/logs"]["responses"].keys()
    assert "application/x-ndjson" in found["post", "/ingest"]["requestBody"]["content"]
    assert "text/plain" in found["get", "/metrics"]["responses"]["200"]["content"]


async def test_documented_gets_answer_and_check_their_parameters(
    daemon: RunningDaemon, document: dict[str, Any]
) -> None:
    checked = 0
    async with daemon.http.post("/ingest", json={"message": "m"}):
        [stored] = await daemon.logs()
    for (method, path), operation in operations(document).items():
        if method != "get":
            continue
        path = path.format(id=stored["id"])
        async with daemon.http.get(path, headers={"Accept": "application/json"}) as answer:
            assert answer.status == 200, path
            assert answer.content_type in operation["responses"]["200"]["content"]
        for name, parameter in parameters(operation).items():
            if re.search(r"date-time|integer|enum|Level", str(parameter["schema"])):
                async with daemon.http.get(path, params={name: "no such thing"}) as answer:
                    assert answer.status == 422, (path, name)
                    assert (await answer.json())["detail"][0]["loc"] == ["query", name]
                checked += 1
    assert checked > 20


async def test_every_route_that_reads_refuses_an_unknown_parameter(
    daemon: RunningDaemon, document: dict[str, Any]
) -> None:
    async with daemon.http.post("/ingest", json={"message": "m"}):
        [stored] = await daemon.logs()
    asked = {
        (method, path.format(id=stored["id"]))
        for (method, path), operation in operations(document).items()
        if operation["tags"] == ["reading"]
    }
    assert len(asked) >= 12
    for method, path in asked | {("delete", "/sources")}:
        body: dict[str, str] | None = {} if method == "post" else None
        async with daemon.http.request(method, path, params={"zzz": "1", "_": "2"}, json=body) as answer:
            assert answer.status == 422, path
            [problem] = (await answer.json())["detail"]
        assert (problem["type"], problem["loc"]) == ("unknown_parameter", ["query", "zzz"]), path
