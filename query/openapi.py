"""The OpenAPI 3.1 document, made from the table of routes and their pydantic models."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal

from pydantic import TypeAdapter

from logagg.query.http import Route
from logagg.query.models import Problem, ValidationProblems

_REF = "#/components/schemas/"
_REFUSALS = {"refusal": Problem, "unfit": ValidationProblems}

Routes = Sequence[Route[Any, Any]]


def document(routes: Routes) -> dict[str, Any]:
    """Return the OpenAPI document of all routes that are not hidden."""
    shown = [route for route in routes if not route.hidden]
    schemas, definitions = _schemas(shown)
    paths: dict[str, dict[str, Any]] = {}
    for place, route in enumerate(shown):
        own = {role: schema for (at, role), schema in schemas.items() if at in (place, -1)}
        paths.setdefault(_template(route.path), {})[route.method.lower()] = _operation(route, own, definitions)
    for route in shown:
        if route.query:  # a query is written as parameters, not as an object
            definitions.pop(route.query.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {"title": "logagg", "version": version("logagg"), "summary": "Logs into PostgreSQL, and back out."},
        "paths": paths,
        "components": {"schemas": definitions},
    }


def _schemas(routes: Routes) -> tuple[dict[tuple[int, str], Any], dict[str, Any]]:
    """Return the schema of each part of each route by its place and role, and the definitions that they refer to."""
    parts: list[tuple[tuple[int, str], Literal["validation", "serialization"], TypeAdapter[Any]]] = []
    for place, route in enumerate(routes):
        if route.query_adapter:
            parts.append(((place, "query"), "validation", route.query_adapter))
        if route.body_adapter:
            parts.append(((place, "body"), "validation", route.body_adapter))
        if route.response:
            parts.append(((place, "response"), "serialization", TypeAdapter(route.response)))
    parts += [((-1, role), "serialization", TypeAdapter(model)) for role, model in _REFUSALS.items()]
    schemas, rest = TypeAdapter.json_schemas(parts, ref_template=_REF + "{model}")
    return {key: schema for (key, _), schema in schemas.items()}, rest["$defs"]


def _operation(route: Route[Any, Any], schemas: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [route.tag],
        "summary": route.summary,
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()} {route.path}").strip("_"),
        "parameters": _path_parameters(route.path),
        "responses": _responses(route, schemas),
    }
    if "query" in schemas:
        operation["parameters"] += _query_parameters(_resolve(schemas["query"], definitions))
    if "body" in schemas:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schemas["body"]}}}
    elif route.consumes:
        operation["requestBody"] = {"required": True, "content": {kind: {} for kind in route.consumes}}
    return operation


def _responses(route: Route[Any, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {kind: {} for kind in route.produces}
    if "response" in schemas:
        content["application/json"] = {"schema": schemas["response"]}
    responses = {str(status): _json(meaning, schemas["refusal"]) for status, meaning in route.statuses.items()}
    if route.query or route.body:
        responses["422"] = _json("Does not fit.", schemas["unfit"])
    for status, meaning in route.also.items():
        responses[str(status)] = _json(meaning, schemas["response"])
    return {"200": {"description": "OK", "content": content}} | dict(sorted(responses.items()))


def _json(description: str, schema: object) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(model: dict[str, Any]) -> list[dict[str, Any]]:
    required = model.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": schema.get("description", ""),
            "schema": {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in model["properties"].items()
    ]


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definitions[schema["$ref"].removeprefix(_REF)] if "$ref" in schema else schema
    return found


def _template(path: str) -> str:
    """Return the path without the patterns that aiohttp allows in it: `/{index:[a-z]+}` is `/{index}`."""
    return re.sub(r"{(\w+):[^}]*}", r"{\1}", path)
