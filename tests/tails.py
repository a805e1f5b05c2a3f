"""A client of live tails, for tests."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp


class Event(NamedTuple):
    """What a browser would hand out, and blocks that only tell an id."""

    id: str
    name: str
    data: Any


class Tail:
    """A tail that is being read."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        #: The last id that was told.
        self.id = ""
        self.problems: list[str] = []

    async def event(self) -> Event:
        """Return the next block. Raises EOFError at the end."""
        name, data = "", ""
        while line := (await self.answer.content.readline()).decode().rstrip("\n"):
            field, _, value = line.partition(": ")
            if field == "id":
                self.id = value
            elif field == "event":
                name = value
            elif field == "data":
                data = value
        if self.answer.content.at_eof() and not data:
            raise EOFError
        found = Event(self.id, name, json.loads(data) if data else None)
        if name == "problem":
            self.problems.append(found.data["detail"])
        return found

    async def record(self) -> dict[str, Any]:
        """Return the next record."""
        while True:
            event = await self.event()
            if event.data and not event.name:
                assert isinstance(event.data, dict)
                return event.data

    async def records(self, count: int) -> list[dict[str, Any]]:
        """Return the next records."""
        return [await self.record() for _ in range(count)]

    async def messages(self, count: int) -> list[str]:
        """Return the messages of the next records."""
        return [record["message"] for record in await self.records(count)]

    async def begun(self) -> str:
        """Return the id behind which the tail begins, once it is told."""
        while not self.id:
            await self.event()
        return self.id


@asynccontextmanager
async def tail(http: aiohttp.ClientSession, *, last: str | None = None, **parameters: str | int) -> AsyncIterator[Tail]:
    """Open a tail."""
    headers = {"Last-Event-ID": last} if last else {}
    async with http.get("/logs/tail", params=parameters, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "text/event-stream"
        yield Tail(answer)


async def send(http: aiohttp.ClientSession, *messages: str, **fields: Any) -> None:
    """Send records, and return when they are committed."""
    body = b"\n".join(json.dumps({"message": message, **fields}).encode() for message in messages)
    async with http.post("/ingest", data=body) as answer:
        assert answer.status == 200, await answer.text()


async def until(condition: Any) -> None:
    """Return when it is so."""
    while not condition():
        await asyncio.sleep(0.01)
