"""Packing in a process of its own gives what packing gives, and dies without taking anything along."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from logagg.protocols.columns import from_records
from logagg.protocols.record import Record
from logagg.sinks import packing
from logagg.sinks.frames import FULL
from logagg.sinks.packhand import PackError, PackHand
from logagg.sinks.spool import Spool
from logagg.sinks.store import Store

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def record(number: int) -> Record:
    time, message = NOW + timedelta(seconds=number), f"message {number} ß"
    return Record(time, NOW, number % 8, None, None, "h", f"s{number % 3}", "::1", message, None, None, None, b"\0\xff")


def records(count: int) -> list[Record]:
    return list(map(record, range(count)))


def frame(count: int) -> pl.DataFrame:
    ids = pl.int_range(1 << 17, (1 << 17) + count, dtype=pl.Int64, eager=True)
    return pl.DataFrame([ids.alias("id"), *from_records(records(count))])


def spooled(count: int) -> Spool:
    return Spool(frame(count), None)


@pytest.fixture
def hand() -> Iterator[PackHand]:
    hand = PackHand()
    yield hand
    hand.stop()


def pid(hand: PackHand) -> int:
    assert hand._process
    return hand._process.pid


def test_it_gives_what_packing_gives(hand: PackHand) -> None:
    for count in (1, 20_000):
        assert hand.pack(spooled(count)) == packing.pack(frame(count))
    assert os.getpriority(os.PRIO_PROCESS, pid(hand)) > os.getpriority(os.PRIO_PROCESS, 0)


def test_what_cannot_be_packed_is_an_error_and_the_next_is_packed(hand: PackHand) -> None:
    with pytest.raises(PackError, match="ColumnNotFoundError"):
        hand.pack(Spool(frame(10).drop("service"), None))
    before = pid(hand)
    assert hand.pack(spooled(10)) == packing.pack(frame(10))
    assert pid(hand) == before


async def killed_at_work(hand: PackHand, work: Coroutine[Any, Any, Any]) -> Any:
    """Kill the process while it is wanted: it is stopped, so that it cannot be done before."""
    os.kill(pid(hand), signal.SIGSTOP)
    task = asyncio.create_task(work)
    await asyncio.sleep(0.3)
    os.kill(pid(hand), signal.SIGKILL)
    return await task


async def test_a_killed_process_is_replaced(hand: PackHand) -> None:
    hand.pack(spooled(1))
    before = pid(hand)
    found = await killed_at_work(hand, asyncio.to_thread(hand.pack, spooled(10)))
    assert found == packing.pack(frame(10))
    assert pid(hand) != before


def test_a_process_that_does_not_live_is_an_error(hand: PackHand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(PackError, match="ended with status 1"):
        hand.pack(spooled(10))
    monkeypatch.undo()
    assert hand.pack(spooled(10)) == packing.pack(frame(10))


def test_a_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 1000\n")
    hangs.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(hangs))
    hand = PackHand(patience=0.2)
    with pytest.raises(PackError, match="ended with status -9"):
        hand.pack(spooled(60_000))
    hand.close()
    with pytest.raises(PackError, match="packing has ended"):
        hand.pack(spooled(1))


def test_an_answer_that_is_none_is_an_error(hand: PackHand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    babbles = tmp_path / "babbles"
    babbles.write_text("#!/bin/sh\nexec yes\n")
    babbles.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(babbles))
    with pytest.raises(PackError, match="ended with status -15"):
        hand.pack(spooled(10))
    monkeypatch.undo()
    assert hand.pack(spooled(10)) == packing.pack(frame(10))


def test_it_ends_with_its_input() -> None:
    command = [sys.executable, "-m", "logagg.sinks.packhand"]
    ours, theirs = socket.socketpair()
    with subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.PIPE) as process:
        theirs.close()
        ours.close()
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b"")


async def test_a_batch_that_was_not_packed_stays_as_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def filled(count: int) -> None:
        await store.write(records(count))
        await store.roll()
        await store.pack_now()

    monkeypatch.setattr(sys, "executable", "/bin/false")
    await filled(300)
    monkeypatch.undo()
    await filled(20)
    found = await store.batches()
    assert sorted((batch.count, batch.packed) for batch in found) == [(20, True), (300, False)]
    for batch in found:
        loaded = (await store.load(batch, list(FULL))).frame
        assert (loaded.height, loaded["raw"].null_count()) == (batch.count, 0)


async def test_a_batch_that_waits_is_read_from_its_file_and_holds_up_who_would_make_too_many(
    database_url: str, tmp_path: Path
) -> None:
    store = await Store.open(database_url, batch_records=100, pack_lag=2, spool_dir=tmp_path)
    await store.write(records(100))
    await store.roll()
    await store.pack_now()
    process = store._packer._hand._process
    assert process
    process.send_signal(signal.SIGSTOP)
    for _ in range(2):
        await store.write(records(100))
        await store.roll()
    third = asyncio.create_task(store.write(records(100)))
    await asyncio.wait([third], timeout=0.5)
    assert not third.done()
    waiting = [batch for batch in await store.batches() if not batch.packed]
    for batch in waiting:
        assert store._own[batch.batch].spool
        loaded = (await store.load(batch, list(FULL))).frame
        assert loaded["message"].to_list() == [f"message {number} ß" for number in range(100)]
        some = loaded["id"][[7, 9]].to_list()
        assert (await store.load(batch, ["raw", "id"], some)).frame["id"].to_list() == some
    process.send_signal(signal.SIGCONT)
    await third
    await store.roll()
    await store.pack_now()
    assert [batch.packed for batch in await store.batches()] == [True] * 4
    await store.close()


async def test_a_batch_whose_file_cannot_be_written_is_packed_from_its_rows(database_url: str, tmp_path: Path) -> None:
    store = await Store.open(database_url, spool_dir=tmp_path / "none")
    await store.write(records(300))
    await store.roll()
    await store.pack_now()
    (batch,) = await store.batches()
    assert not batch.packed
    assert (await store.load(batch, ["id"])).frame.height == 300
    await store.close()
