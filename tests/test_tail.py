"""Live tails over HTTP, at a whole daemon."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon
    from logagg.tests.tails import send, tail
else:
    from tails import send, tail


async def test_records_come_as_they_are_committed(daemon: RunningDaemon) -> None:
    async with tail(daemon.http, q="shop", level="ERROR") as found:
        assert (await found.answer.content.readline()) == b"retry: 1000\n"
        await found.begun()
        await send(daemon.http, "at the shop", "elsewhere", service="s", level="ERROR", attribute={"a": [1, "x"]})
        await send(daemon.http, "at the shop, too", level="INFO")
        await send(daemon.http, "in another shop", level="ERROR", timestamp="0001-01-01T00:00:00Z")
        assert await found.messages(2) == ["at the shop", "in another shop"]
    (first,) = await daemon.logs(q='"at the shop" service=s')
    async with tail(daemon.http, last="1-0") as again:
        assert await again.record() == first
        assert len(again.id) <= 300


async def test_what_was_there_before_does_not_come(daemon: RunningDaemon) -> None:
    await send(daemon.http, "before")
    async with tail(daemon.http) as found:
        await found.begun()
        await send(daemon.http, "after")
        assert await found.messages(1) == ["after"]


async def test_a_backlog_comes_first_and_goes_on_where_it_broke_off(daemon: RunningDaemon) -> None:
    for n in range(7):
        await send(daemon.http, f"word {n}", f"other {n}", timestamp=f"2026-01-0{7 - n}T00:00:00Z")
    async with tail(daemon.http, q="word", backlog=5) as found:
        assert await found.messages(2) == ["word 4", "word 3"]
        await send(daemon.http, "word of now")
        assert await found.messages(4) == ["word 2", "word 1", "word 0", "word of now"]
    async with tail(daemon.http, q="word", backlog=5) as found:
        assert await found.messages(3) == ["word 3", "word 2", "word 1"]
    async with tail(daemon.http, q="word", backlog=5, last_event_id=found.id) as again:
        assert await again.messages(2) == ["word 0", "word of now"]
        await send(daemon.http, "word of then")
        assert await again.messages(1) == ["word of then"]


async def test_it_goes_on_behind_any_record(daemon: RunningDaemon) -> None:
    async with tail(daemon.http) as found:
        ids = [await found.begun()]
        await asyncio.gather(*(send(daemon.http, *(f"{n} {m}" for m in range(40))) for n in range(5)))
        records = []
        for _ in range(200):
            records.append(await found.record())
            ids.append(found.id)
    for place in (0, 1, 39, 77, 120, 199):
        async with tail(daemon.http, last=ids[place]) as again:
            assert await again.records(200 - place) == records[place:]


async def test_a_tail_without_any_record_knows_its_place(daemon: RunningDaemon) -> None:
    async with tail(daemon.http) as found:
        place = await found.begun()
    await send(daemon.http, "meanwhile")
    async with tail(daemon.http, last=place) as again:
        assert await again.messages(1) == ["meanwhile"]


WRONG: list[tuple[dict[str, str], int, str]] = [
    ({"q": "level>=loud"}, 422, "expected one of EMERGENCY"),
    ({"level": "LOUD"}, 422, "level"),
    ({"backlog": "10001"}, 422, "backlog"),
    ({"last_event_id": "of somebody else"}, 400, "malformed last_event_id"),
    ({"last_event_id": "1-5-6.1"}, 400, "malformed last_event_id"),
    ({"last_event_id": "1-5~1.xx"}, 400, "malformed cursor"),
]


async def test_a_wrong_question_is_refused(daemon: RunningDaemon) -> None:
    for parameters, status, detail in WRONG:
        async with daemon.http.get("/logs/tail", params=parameters) as answer:
            assert (parameters, answer.status) == (parameters, status)
            assert detail in await answer.text()


async def test_an_id_of_another_database_is_told(daemon: RunningDaemon) -> None:
    async with tail(daemon.http, last="1-ffff") as found:
        await found.begun()
        assert "another database" in found.problems[0]
        await send(daemon.http, "new")
        assert await found.messages(1) == ["new"]
