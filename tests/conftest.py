"""What the tests share: a real PostgreSQL, and a fresh database of it for each test.

LOGAGG_TEST_DATABASE_URL names a server to use instead of an embedded one; its user must be allowed to create databases.
LOGAGG_TEST_LOOP=uvloop runs the asynchronous tests under uvloop; PYTHONASYNCIODEBUG=1 in asyncio's debug mode.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import hypothesis
import pytest
import uvloop

from logagg.query.engine import Engine
from logagg.sinks.embedded import EmbeddedPostgres
from logagg.sinks.store import Store

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("logagg", deadline=None)
hypothesis.settings.load_profile("logagg")

# Every worker and hundreds of daemons and commands would compile the same files again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

#: Bytes that name a case by themselves.
LONGEST_NAME = 16

#: What the server of the tests is spared. Nothing in it outlives the machine: a crash of the server alone loses nothing
#: without fsync. Little memory is soon warm, and a DROP DATABASE looks through all of it.
SPARED = {
    **dict.fromkeys(("fsync", "full_page_writes", "wal_compression", "wal_init_zero"), "off"),
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
}
#: A folder in memory, and the bytes that have to be free there: what a server has written stays below.
MEMORY = Path("/dev/shm")  # noqa: S108 - a name that nobody knows is made in it
ROOM = 1 << 30

#: Whole daemons: `daemon`, `start_daemon`.
pytest_plugins = ["daemons"]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    if os.environ.get("LOGAGG_TEST_LOOP") == "uvloop":
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name long bytes by their place: what was compressed is another each second, and workers must agree."""
    return argname if isinstance(val, bytes) and len(val) > LONGEST_NAME else None


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, in a thread: there may be a loop in this one already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _with_database(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def _memory() -> Path | None:
    """Return the folder in memory where there is one with room, or None: the system's for temporary files."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM:
        return None
    # As root, programs that their user cannot reach are copied beside the data.
    return None if os.statvfs(MEMORY).f_flag & os.ST_NOEXEC else MEMORY


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a server: a temporary embedded one, or the one of LOGAGG_TEST_DATABASE_URL."""
    if url := os.environ.get("LOGAGG_TEST_DATABASE_URL"):
        yield url
        return
    # Not below pytest's: as root nobody else may enter that.
    folder = Path(tempfile.mkdtemp(prefix="logagg-test-", dir=_memory()))
    try:
        with EmbeddedPostgres(folder, settings=SPARED) as server:
            yield server.url
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def _template(postgres_url: str) -> Iterator[str]:
    """The name of a migrated database that nobody is connected to."""
    name = f"logagg_template_{uuid4().hex[:12]}"
    _run(_execute(postgres_url, f"create database {name}"))

    async def migrate() -> None:
        store = await Store.open(_with_database(postgres_url, name))
        await store.close()

    _run(migrate())
    yield name
    _run(_execute(postgres_url, f"drop database {name} with (force)"))


@pytest.fixture
def database_url(postgres_url: str, _template: str) -> Iterator[str]:
    """The address of a fresh, migrated database."""
    name = f"logagg_test_{uuid4().hex[:12]}"
    _run(_execute(postgres_url, f"create database {name} template {_template} strategy file_copy"))
    yield _with_database(postgres_url, name)
    _run(_execute(postgres_url, f"drop database {name} with (force)"))


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """The address of a fresh database with nothing in it."""
    name = f"logagg_test_{uuid4().hex[:12]}"
    _run(_execute(postgres_url, f"create database {name}"))
    yield _with_database(postgres_url, name)
    _run(_execute(postgres_url, f"drop database {name} with (force)"))


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """An open store on a fresh database."""
    store = await Store.open(database_url)
    yield store
    await store.close()


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of an ordinary user to the same database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    if not connection.is_closed():
        await connection.close(timeout=5)


@pytest.fixture
async def small(database_url: str) -> AsyncIterator[Store]:
    """A store that begins a new batch after 50 records."""
    store = await Store.open(database_url, batch_records=50)
    yield store
    await store.close()


@pytest.fixture
async def engine(small: Store) -> AsyncIterator[Engine]:
    """What asks that store."""
    engine = Engine(small, timeout=30)
    yield engine
    engine.close()
