"""Records for tests of queries."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from logagg.protocols.record import Record
from logagg.sinks.store import Store

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def record(at: float = 0, message: str = "hello", **changes: Any) -> Record:
    given: dict[str, Any] = {
        "timestamp": NOON + at * SECOND,
        "received_at": NOON,
        "severity": 6,
        "facility": None,
        "environment": "test",
        "host": "h1",
        "service": "api",
        "source": "127.0.0.1",
        "message": message,
        "attributes": None,
        "trace_id": None,
        "span_id": None,
        "raw": None,
    }
    if "attributes" in changes:
        changes["attributes"] = orjson.dumps(changes["attributes"]).decode()
    return Record(**(given | changes))


def mixed(count: int, seed: int = 1) -> list[Record]:
    """Records with many equal timestamps, out of order."""
    draw = random.Random(seed)  # noqa: S311 - tests want the same numbers each time
    words = ["alpha", "beta", "gamma", "delta", "timeout"]
    return [
        record(
            draw.randrange(50),
            " ".join(draw.choices(words, k=3)),
            severity=draw.randrange(8),
            service=draw.choice(["api", "web", "db", None]),
            host=draw.choice(["h1", "h2"]),
            **({"attributes": {"user": draw.randrange(5), "tag": draw.choice(words)}} if draw.random() < 0.5 else {}),
        )
        for _ in range(count)
    ]


async def in_batches(store: Store, records: Sequence[Record], size: int) -> None:
    """Write in pieces; a store of small batches closes a batch each time one is full."""
    for start in range(0, len(records), size):
        await store.write(records[start : start + size])
