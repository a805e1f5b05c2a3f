"""What is very little, very much, or in every script: through the real daemon, open and packed, and out again."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from logagg.tests.batches import connection
    from logagg.tests.processes import PATIENCE, free_port, process, wait_ready
    from logagg.tests.scripted import logagg
else:
    from batches import connection
    from processes import PATIENCE, free_port, process, wait_ready
    from scripted import logagg


class Asked:
    """A daemon, and what it answers."""

    def __init__(self, http: aiohttp.ClientSession, url: str, form: str) -> None:
        self.http = http
        self.url = url
        #: In which form it has the records: `open` or `packed`.
        self.form = form

    async def send(self, records: Sequence[dict[str, Any]]) -> None:
        """Send all in one body."""
        async with self.http.post("/ingest", data=BytesIO(b"\n".join(map(orjson.dumps, records)))) as answer:
            assert await answer.json() == {"accepted": len(records), "quarantined": 0}

    async def count(self, q: str = "") -> int:
        """Return how many records match."""
        async with self.http.get("/logs/aggregations", params={"by": "level", "q": q}) as answer:
            assert "X-Logagg-Incomplete" not in answer.headers
            return sum(row["count"] for row in await answer.json())

    async def search(self, q: str, limit: int = 10) -> list[dict[str, Any]]:
        """Return the newest records that match."""
        async with self.http.get("/logs", params={"q": q, "limit": str(limit)}) as answer:
            assert (answer.status, answer.headers.get("X-Logagg-Incomplete")) == (200, None)
            records: list[dict[str, Any]] = await answer.json()
            return records

    async def one(self, q: str) -> dict[str, Any]:
        """Return the only record that matches."""
        (record,) = await self.search(q)
        return record

    async def export(self) -> list[dict[str, Any]]:
        """Return what `logagg export` writes."""
        done = await asyncio.to_thread(logagg, "export", "--url", self.url)
        assert (done.exit_code, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]


@asynccontextmanager
async def served(database_url: str, form: str) -> AsyncIterator[Asked]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with process(database_url=database_url, http_listen=f"127.0.0.1:{port}") as daemon:
        await asyncio.to_thread(wait_ready, port)
        async with aiohttp.ClientSession(url) as http:
            yield Asked(http, url, form)
        daemon.terminate()
        assert await asyncio.to_thread(daemon.wait, PATIENCE) == 0


async def both_forms(database_url: str, records: Sequence[dict[str, Any]]) -> AsyncIterator[Asked]:
    """Yield a daemon that has just taken the records, and then another that finds them packed."""
    async with served(database_url, "open") as daemon:
        await daemon.send(records)
        yield daemon
    async with served(database_url, "packed") as daemon, connection(database_url) as sql:
        while await sql.fetchval("select count(*) from batches where packed_at is null"):
            await asyncio.sleep(0.02)
        yield daemon


@pytest.mark.parametrize("count", [1, 100_000])
async def test_one_record_and_a_hundred_thousand_in_one_body(database_url: str, count: int) -> None:
    """In, found, counted, exported, packed, found again, and unpacked into a table."""
    records = [{"message": f"record number{n}", "n": n, "service": f"s{n % 7}"} for n in range(count)]
    async for daemon in both_forms(database_url, records):
        assert await daemon.count() == await daemon.count("record") == count
        assert await daemon.count("service:s0") == len(range(0, count, 7))
        for needle in {0, count // 3, count - 1}:
            assert (await daemon.one(f"number{needle}"))["message"] == f"record number{needle}"
            assert (await daemon.one(f"n={needle}"))["attributes"] == {"n": needle}
        assert await daemon.search("nowhere") == []
        exported = await daemon.export()
        assert sorted(record["attributes"]["n"] for record in exported) == list(range(count))
    place = ("--database-url", database_url)
    done = await asyncio.to_thread(logagg, "db", "unpack", "--since", "1h", "--into", "again", *place)
    assert done.exit_code == 0, done.stderr
    async with connection(database_url) as sql:
        assert await sql.fetchval("select count(*) from again") == count
        both = "select count(*) from again a join logs l on a = l and a.id = l.id"
        assert await sql.fetchval(both) == count


async def test_ten_thousand_services(database_url: str) -> None:
    records = [{"message": "m", "service": f"service-{n % 10_000}"} for n in range(20_000)]
    async for daemon in both_forms(database_url, records):
        assert len(await daemon.search("service=service-7777")) == 2
        async with daemon.http.get("/logs/aggregations", params={"by": "service"}) as answer:
            rows = await answer.json()
        assert {row["service"]: row["count"] for row in rows} == {f"service-{n}": 2 for n in range(10_000)}


async def test_a_word_of_60_kilobytes_and_twenty_thousand_words(database_url: str) -> None:
    word, words = "w" * 60_000, [f"word{n}" for n in range(20_000)]
    records = [{"message": word, "n": 1}, {"message": " ".join(words), "n": 2}, {"message": "x", "n": 3, "a": word}]
    async for daemon in both_forms(database_url, records):
        assert (await daemon.one("n=1"))["message"] == word
        assert (await daemon.one("n=2"))["message"] == " ".join(words)
        assert [record["attributes"]["n"] for record in await daemon.search(f"{'w' * 50}*")] == [3, 1]
        for each in (*words[::4999], words[-1]):
            assert (await daemon.one(each))["attributes"] == {"n": 2}
        assert (await daemon.one(f'"{words[500]} {words[501]}"'))["attributes"] == {"n": 2}
        assert await daemon.search("word20000") == []


SCRIPTS = {
    "磁盘": "错误 磁盘 已满",
    "диск": "ошибка ДИСК переполнен",
    "straße": "in der STRASSE, Straße 7",
    "δίσκος": "Σφάλμα δίσκος γεμάτος",
    "קובץ": "שגיאה קובץ לא נמצא",
    "قرص": "خطأ قرص ممتلئ",
    "디스크": "오류 디스크 가득 참",
    "ディスク": "エラー ディスク がいっぱい",
    "डिस्क": "त्रुटि डिस्क भर गई",
    "ดิสก์": "ข้อผิดพลาด ดิสก์ เต็ม",
    "déjà": "erreur: DÉJÀ vu",
    "boom": "💥boom💥 at 🚀launch",
    "launch": "💥boom💥 at 🚀launch",
    '"💥boom"': "💥boom💥 at 🚀launch",
    "*🚀*": "💥boom💥 at 🚀launch",
    "𝔘𝔫𝔦": "math 𝔘𝔫𝔦 letters",
}


@pytest.mark.parametrize("place", ["message", "attribute"])
async def test_words_of_every_script(database_url: str, place: str) -> None:
    texts = sorted(set(SCRIPTS.values()))
    filler = [{"message": f"nothing {n}"} for n in range(50)]
    records = [{"message": text} if place == "message" else {"message": "m", "note": text} for text in texts]
    async for daemon in both_forms(database_url, filler + records):
        for q, text in SCRIPTS.items():
            found = await daemon.one(q)
            assert text in (found["message"], (found["attributes"] or {}).get("note")), (daemon.form, q)
            assert await daemon.count(q) == 1


async def test_a_clock_that_jumps_back(database_url: str) -> None:
    """Times of senders, hours and years before those that came first; what is newest is told by them alone."""
    hours = [12, 11, 13, 5, 5, 23, 0, 12]
    records = [
        {"message": f"m{n}", "n": n, "timestamp": f"2026-11-20T{hour:02}:30:00Z"} for n, hour in enumerate(hours)
    ]
    records += [{"message": "m8", "n": 8, "timestamp": "1970-01-01T00:00:00Z"}]
    async for daemon in both_forms(database_url, records):
        found = [record["attributes"]["n"] for record in await daemon.search("")]
        assert found == [5, 2, 7, 0, 1, 4, 3, 6, 8]
        assert [record["attributes"]["n"] for record in await daemon.export()] == found[::-1]
