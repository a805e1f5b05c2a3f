"""A packed batch with a flipped bit: named in the answers of daemon and command line; the rest is answered."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from logagg.tests.batches import connection, leave_packed, record
    from logagg.tests.daemons import Starter
    from logagg.tests.scripted import logagg
else:
    from batches import connection, leave_packed, record
    from scripted import logagg


async def flip(database_url: str, part: str, number: int) -> None:
    """Flip one bit in the middle of a part."""
    place = f"octet_length({part}) * 4"
    change = f"update batches set {part} = set_bit({part}, {place}, 1 - get_bit({part}, {place})) where batch = $1"  # noqa: S608 - ours
    async with connection(database_url) as sql:
        assert await sql.execute(change, number) == "UPDATE 1"


@pytest.mark.parametrize("part", ["head", "body"])
async def test_the_batch_is_named_and_the_others_answer(database_url: str, start_daemon: Starter, part: str) -> None:
    first, damaged, last = await leave_packed(
        database_url, *([record(message=f"{name} record {n}") for n in range(500)] for name in ("a", "b", "c"))
    )
    await flip(database_url, part, damaged)
    daemon = await start_daemon()
    named = f"batch {damaged}: {part}: "
    async with daemon.http.get("/logs", params={"q": "record", "limit": "10000"}) as answer:
        assert answer.headers["X-Logagg-Incomplete"].startswith(named)
        batches = [each["id"] >> 17 for each in await answer.json()]
    assert {number: batches.count(number) for number in set(batches)} == {first: 500, last: 500}
    async with daemon.http.post("/logs/search", json={"q": "record"}) as answer:
        body = await answer.json()
    assert (body["total_count"], body["incomplete"][0][: len(named)]) == (1000, named)
    url = f"http://{daemon.listening['http_listen']}"
    search = ("search", "record", "-n", "0", "-o", "jsonl", "--url", url)
    done = await asyncio.to_thread(logagg, *search)
    assert done.exit_code == 0
    assert {json.loads(line)["id"] >> 17 for line in done.stdout.splitlines()} == {first, last}
    assert done.stderr.startswith(f"warning: the answer is not whole: {named}")
    counted = await asyncio.to_thread(logagg, "aggregate", "record", "-o", "csv", "--url", url)
    assert "1000" in counted.stdout
    assert named in counted.stderr


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_an_export_gives_the_rest_and_says_that_it_is_not_whole(
    database_url: str, start_daemon: Starter, place: int, tmp_path: Path
) -> None:
    numbers = await leave_packed(database_url, *([record(message=name)] * 500 for name in ("a", "b", "c")))
    await flip(database_url, "body", numbers[place])
    daemon = await start_daemon()
    file, url = tmp_path / "all.jsonl", f"http://{daemon.listening['http_listen']}"
    done = await asyncio.to_thread(logagg, "export", "--url", url, "-o", str(file))
    assert done.exit_code == 2
    assert "the export is not whole" in done.stderr
    assert not file.exists()
    rest = (tmp_path / "all.jsonl.part").read_text().splitlines()
    assert {json.loads(line)["id"] >> 17 for line in rest} == set(numbers) - {numbers[place]}
    assert len(rest) == 1000


async def test_a_flipped_summary_changes_no_count(database_url: str, start_daemon: Starter) -> None:
    numbers = await leave_packed(
        database_url, *([record(message=f"{name} record {n}", service="s") for n in range(500)] for name in ("a", "b"))
    )
    await flip(database_url, "summary", numbers[0])
    daemon = await start_daemon()
    async with daemon.http.get("/logs/aggregations", params={"by": "service"}) as answer:
        assert await answer.json() == [{"service": "s", "count": 1000}]
