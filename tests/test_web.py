"""The listener of HTTP itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon


async def test_a_query_may_be_long(daemon: RunningDaemon) -> None:
    async with daemon.http.post("/ingest", json={"message": "needle"}) as answer:
        assert answer.status == 200
    words = " or ".join(f"{'word' * 5}{number}" for number in range(700))
    assert len(words) > 15_000
    assert [record["message"] for record in await daemon.logs(q=f"needle or {words}")] == ["needle"]
