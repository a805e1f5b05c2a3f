"""Tails against a search afterwards: none lost, none twice, whoever writes meanwhile, wherever they break off."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, aclosing, suppress
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from logagg.query.answers import Filter
from logagg.query.engine import Engine
from logagg.query.tail import Tails
from logagg.sinks.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from logagg.tests.batches import record
else:
    from batches import record

PATIENCE = 20
QUERIES = [None, "-even", "even /7$/ or n<20"]


class Reader:
    """Reads a tail, breaks off now and then, and goes on with another one of whichever daemon."""

    def __init__(self, tails: list[Tails], q: str | None, chance: random.Random) -> None:
        self._tails = tails
        self._q = q
        self._chance = chance
        self._at: str | None = None
        self.found: list[dict[str, Any]] = []
        self.problems: list[str] = []

    async def begin(self) -> None:
        async with aclosing(self._blocks()) as blocks:
            async for _ in blocks:
                if self._at:
                    return

    async def _blocks(self) -> AsyncGenerator[dict[str, str], None]:
        async with self._chance.choice(self._tails).tail(Filter(q=self._q), resume=self._at) as events:
            async for data in events:
                for block in data.decode().split("\n\n")[:-1]:
                    fields = dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
                    if fields.get("event") == "problem":
                        self.problems.append(fields["data"])
                    elif "data" in fields:
                        self.found.append(orjson.loads(fields["data"]))
                    self._at = fields.get("id", self._at)
                    yield fields

    async def read(self, wanted: asyncio.Future[int]) -> None:
        """Read until there are so many."""
        while not wanted.done() or len(self.found) < wanted.result():
            left = self._chance.randrange(1, 400)
            seconds = PATIENCE if wanted.done() else self._chance.choice([0.2, 0.5, 1])
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds), aclosing(self._blocks()) as blocks:
                    async for fields in blocks:
                        left -= "data" in fields
                        if left <= 0 or (wanted.done() and len(self.found) >= wanted.result()):
                            break
                    continue
            if seconds == PATIENCE:
                return  # what it has not found by now is lost


@pytest.mark.parametrize("seed", range(2))
async def test_readers_that_come_and_go_beside_writers(database_url: str, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test that can be repeated
    async with AsyncExitStack() as stack:
        stores = [await Store.open(database_url, connections=4, batch_records=chance.choice([150, 3000])) for _ in "ab"]
        for store in stores:
            stack.push_async_callback(store.close)
        engines = [Engine(store, timeout=60) for store in stores]
        for engine in engines:
            stack.callback(engine.close)
        tails = [Tails(store, engine) for store, engine in zip(stores, engines, strict=True)]
        for each in tails:
            stack.push_async_callback(each.stop)
        readers = [Reader(tails, q, chance) for q in QUERIES]
        for reader in readers:
            await reader.begin()
        wanted = [asyncio.get_running_loop().create_future() for _ in readers]
        async with asyncio.TaskGroup() as group:
            for reader, future in zip(readers, wanted, strict=True):
                group.create_task(reader.read(future))
            async with asyncio.TaskGroup() as writers:
                for number in range(6):
                    writers.create_task(write(stores[number % 2], number, chance))
            expected = []
            for q, future in zip(QUERIES, wanted, strict=True):
                expected.append((await engines[0].search(Filter(q=q), limit=10_000)).records)
                future.set_result(len(expected[-1]))
        for reader, records in zip(readers, expected, strict=True):
            assert not reader.problems
            ids = [found["id"] for found in reader.found]
            assert sorted(ids) == sorted(each["id"] for each in records)
            assert {found["message"] for found in reader.found} == {each["message"] for each in records}


async def write(store: Store, writer: int, chance: random.Random) -> None:
    """Write some hundred records: some refused, some repeated, and in between nothing."""
    for turn in range(chance.randrange(5, 12)):
        count = chance.choice([1, 3, 50, 120])
        numbers = range(count)
        records = [
            record(message=f"{'even' if n % 2 == 0 else 'odd'} {writer} {turn} {n}", attributes=f'{{"n": {turn * n}}}')
            for n in numbers
        ]
        if chance.random() < 0.2:
            records[chance.randrange(count)] = record(message="never", attributes='{"broken')
        key = [f"{writer} {chance.randrange(10)}".encode()] if chance.random() < 0.3 else []
        await store.write(records, keys=key)
        await asyncio.sleep(chance.choice([0, 0, 0.02, 0.1]))
