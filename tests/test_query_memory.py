"""No answer takes more memory than a limit, and an error says so with its numbers."""

from collections.abc import AsyncIterator

import pytest
from samples import record  # type: ignore[import-not-found]  # pytest has this folder on the path

from logagg.query import errors
from logagg.query.answers import Filter
from logagg.query.engine import Engine
from logagg.query.errors import QueryLimit
from logagg.sinks.store import Store

LARGE = 10_000


@pytest.fixture
async def engine(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """Records of 10 KB, and a limit of 500 KB."""
    monkeypatch.setattr(errors, "MAX_ANSWER", 50 * LARGE)
    await store.write([record(n, f"{n} ".ljust(LARGE, "x"), service=f"{n}".ljust(LARGE, "s")) for n in range(100)])
    engine = Engine(store, timeout=30)
    yield engine
    engine.close()


async def test_a_page_of_large_records(engine: Engine) -> None:
    assert len((await engine.search(Filter(), limit=20)).records) == 20
    with pytest.raises(QueryLimit, match=r"records take 2\d{6} bytes of memory, at most 500000; ask for fewer"):
        await engine.search(Filter(), limit=100)


async def test_groups_of_large_values(engine: Engine) -> None:
    assert len((await engine.aggregate(Filter(), ["level"])).rows) == 1
    with pytest.raises(QueryLimit, match=r"100 groups take 1\d{6} bytes of memory, at most 500000; ask for fewer"):
        await engine.aggregate(Filter(), ["service"])
