"""Packing in a process of its own gives what packing gives, and dies without taking anything along."""

import asyncio
import os
import signal
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


@pytest.fixture
def hand() -> Iterator[PackHand]:
    hand = PackHand()
    yield hand
    hand.stop()


def pid(hand: PackHand) -> int:
    assert hand._process
    return hand._process.pid


def test_it_gives_what_packing_gives(hand: PackHand) -> None:
    for count in (1, 20_000):  # more than one slice
        assert hand.pack(frame(count)) == packing.pack(frame(count))
    assert os.getpriority(os.PRIO_PROCESS, pid(hand)) > os.getpriority(os.PRIO_PROCESS, 0)


def test_what_cannot_be_packed_is_an_error_and_the_next_is_packed(hand: PackHand) -> None:
    with pytest.raises(PackError, match="ColumnNotFoundError"):
        hand.pack(frame(10).drop("service"))
    before = pid(hand)
    assert hand.pack(frame(10)) == packing.pack(frame(10))
    assert pid(hand) == before


async def killed_at_work(hand: PackHand, work: Coroutine[Any, Any, Any]) -> Any:
    """Kill the process while it is wanted: it is stopped, so that it cannot be done before."""
    os.kill(pid(hand), signal.SIGSTOP)
    task = asyncio.create_task(work)
    await asyncio.sleep(0.3)
    os.kill(pid(hand), signal.SIGKILL)
    return await task


@pytest.mark.parametrize("count", [10, 60_000], ids=["waiting for its answer", "writing to it"])
async def test_a_killed_process_is_replaced(hand: PackHand, count: int) -> None:
    hand.pack(frame(1))
    before = pid(hand)
    found = await killed_at_work(hand, asyncio.to_thread(hand.pack, frame(count)))
    assert found == packing.pack(frame(count))
    assert pid(hand) != before


def test_a_process_that_does_not_live_is_an_error(hand: PackHand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(PackError, match="ended with status 1"):
        hand.pack(frame(10))
    monkeypatch.undo()
    assert hand.pack(frame(10)) == packing.pack(frame(10))


def test_a_process_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 1000\n")
    hangs.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(hangs))
    hand = PackHand(patience=0.2)
    with pytest.raises(PackError, match="ended with status -9"):
        hand.pack(frame(60_000))
    hand.close()
    with pytest.raises(PackError, match="packing has ended"):
        hand.pack(frame(1))


def test_an_answer_that_is_none_is_an_error(hand: PackHand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    babbles = tmp_path / "babbles"
    babbles.write_text("#!/bin/sh\nexec yes\n")
    babbles.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(babbles))
    with pytest.raises(PackError, match="ended with status -15"):
        hand.pack(frame(10))
    monkeypatch.undo()
    assert hand.pack(frame(10)) == packing.pack(frame(10))


def test_it_ends_with_its_input() -> None:
    command = [sys.executable, "-m", "logagg.sinks.packhand"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        out, _ = process.communicate(b"\0\0", timeout=60)
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
