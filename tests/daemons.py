"""A daemon for a test: the whole of it, in the loop of the test, on a database of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from logagg.collector.config import load_settings
from logagg.collector.daemon import run
from logagg.collector.reload import Reloading
from logagg.collector.settings import Settings
from logagg.collector.units import Address


class RunningDaemon:
    """A whole daemon in the loop of the test, on ports that the kernel chose."""

    def __init__(self, listening: Mapping[str, Address], http: aiohttp.ClientSession) -> None:
        self.listening = listening
        self.http = http

    async def tcp(self, setting: str, data: bytes) -> None:
        """Send bytes over a connection of their own, and wait until the daemon has read them all."""
        reader, writer = await asyncio.open_connection(*self.listening[setting])
        writer.write(data)
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async def metric(self, name: str, **labels: str) -> float:
        """Return the value of a metric; 0.0 for what has not been counted yet."""
        async with self.http.get("/metrics", headers={"Accept": "text/plain"}) as answer:
            text = await answer.text()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return 0.0

    async def logs(self, **parameters: str) -> list[dict[str, Any]]:
        """Return what `GET /logs` answers, once nothing waits for PostgreSQL any more."""
        while await self.metric("logagg_buffer_records"):
            await asyncio.sleep(0.01)
        async with self.http.get("/logs", params=parameters) as answer:
            assert answer.status == 200, await answer.text()
            records: list[dict[str, Any]] = await answer.json()
            return records


#: What the daemon logs: a mapping a line.
Lines = Sequence[Mapping[str, Any]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged during the test."""
    with capture_logs() as lines:
        yield lines


Starter = Callable[..., Awaitable[RunningDaemon]]


@pytest.fixture
async def start_daemon(database_url: str) -> AsyncIterator[Starter]:
    """Start a daemon on a fresh database, with these settings; it is stopped after the test."""
    stopping = asyncio.Event()
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:

        async def start(**settings: Any) -> RunningDaemon:
            listening: asyncio.Future[Mapping[str, Address]] = asyncio.get_running_loop().create_future()
            listeners = {name: ":0" for name, value in load_settings() if name.endswith("_listen") and value}
            folder = stack.enter_context(TemporaryDirectory(prefix="logagg-test-"))
            made = Settings(**{"database_url": database_url, "data_dir": folder, **listeners, **settings})
            task = group.create_task(run(Reloading(made, lambda: made), stopping, listening.set_result))
            # One that cannot start never listens.
            task.add_done_callback(lambda _: listening.done() or listening.cancel())
            addresses = await listening
            http = aiohttp.ClientSession(f"http://{addresses['http_listen']}")
            await stack.enter_async_context(http)
            return RunningDaemon(addresses, http)

        yield start
        stopping.set()


@pytest.fixture
async def daemon(start_daemon: Starter) -> RunningDaemon:
    """A daemon with the default settings."""
    return await start_daemon()
