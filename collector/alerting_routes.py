"""`GET /alerts` and `POST /alerts/{name}/test`: how the alerts stand, and whether their webhooks are taken."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from logagg.collector.alerting import Alerting
from logagg.collector.alerts import Unit
from logagg.query.http import Route, reply


class AlertAnswer(BaseModel):
    """One alert, and how it stands."""

    name: str
    state: Literal["firing", "ok", "unknown"] = Field(description="`unknown`: not evaluated yet.")
    since: datetime | None = Field(description="When it began to fire, or ceased to.")
    value: float | None = Field(
        description="What was found: records, seconds of silence, new patterns; null: nothing was evaluated yet, or a"
        " silence is of what was not seen yet."
    )
    unit: Unit = Field(description="Of the value; those of a silence have one decimal.")
    checked_at: datetime | None
    waiting: int = Field(description="Messages that the webhook has not taken yet.")
    condition: str
    query: str


class TestedAnswer(BaseModel):
    """What came of a test."""

    name: str
    firing: bool | None = Field(description="Whether it would fire now; null: that could not be told.")
    value: float | None = Field(description="As `GET /alerts` has it.")
    unit: Unit
    condition: str
    status: int | None = Field(description="With which status the webhook took the message; null: it did not.")
    problem: str | None = Field(description="Why not.")


def alert_routes(alerting: Alerting) -> Sequence[Route[Any, Any]]:
    """Return the routes of alerts."""

    async def states(request: web.Request, query: None, body: None) -> web.Response:
        return reply(await alerting.states())

    async def test(request: web.Request, query: None, body: None) -> web.Response:
        name = request.match_info["name"]
        if name not in alerting.rules:
            there = f"there are: {', '.join(alerting.rules)}" if alerting.rules else "there are none"
            raise web.HTTPNotFound(reason=f"there is no alert {name[:100]!r}; {there}")
        return reply(await alerting.test(alerting.rules[name]))

    return [
        Route("GET", "/alerts", "The alerts, and how they stand", "service", states, response=list[AlertAnswer],
              scope="admin"),
        Route(
            "POST", "/alerts/{name}/test", "Evaluate an alert now, and send a test to its webhook", "service", test,
            response=TestedAnswer, statuses={404: "There is no such alert."}, scope="admin",
        ),
    ]  # fmt: skip
