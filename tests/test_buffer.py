import asyncio
from datetime import UTC, datetime

import pytest

from logagg.collector.buffer import Chunk, RingBuffer
from logagg.protocols.record import Decoded, Reject

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def chunk(count: int = 1, size: int = 10, *, acked: bool = False) -> Chunk:
    rejects = [Reject(NOW, "test", "127.0.0.1", "a reason", b"raw")] * count
    done = asyncio.get_running_loop().create_future() if acked else None
    return Chunk("test", Decoded([], rejects), size, done)


async def test_chunks_come_out_in_order_and_no_more_than_asked_for() -> None:
    buffer = RingBuffer(100, 1000)
    chunks = [chunk(4), chunk(4), chunk(4)]
    for each in chunks:
        assert buffer.offer(each)
    assert await buffer.take(10, 0) == chunks[:2]
    assert await buffer.take(1, 0) == chunks[2:]


@pytest.mark.parametrize(("count", "size"), [(11, 10), (1, 101)])
async def test_what_does_not_fit_is_not_taken(count: int, size: int) -> None:
    buffer = RingBuffer(max_records=12, max_bytes=110)
    assert buffer.offer(chunk(2, 10))
    assert not buffer.offer(chunk(count, size))
    assert (buffer.records, buffer.bytes) == (2, 10)


async def test_a_chunk_larger_than_the_buffer_goes_into_an_empty_one() -> None:
    buffer = RingBuffer(1, 1)
    assert buffer.offer(chunk(5, 50))
    assert not buffer.offer(chunk())


async def test_room_is_given_back_only_when_settled() -> None:
    buffer = RingBuffer(1, 1000)
    first, second = chunk(), chunk()
    await buffer.put(first)
    waiting = asyncio.create_task(buffer.put(second))
    taken = await buffer.take(10, 0)
    await asyncio.sleep(0)
    assert not waiting.done()
    buffer.settle(taken)
    await waiting
    assert await buffer.take(10, 0) == [second]


async def test_chunks_gather_until_there_are_enough() -> None:
    buffer = RingBuffer(100, 1000)
    buffer.offer(chunk())
    taking = asyncio.create_task(buffer.take(3, linger=60))
    await asyncio.sleep(0.01)
    assert not taking.done()
    buffer.offer(chunk())
    buffer.offer(chunk())
    assert len(await taking) == 3


async def test_nothing_gathers_while_a_sender_waits() -> None:
    buffer = RingBuffer(100, 1000)
    buffer.offer(chunk())
    taking = asyncio.create_task(buffer.take(3, linger=60))
    await asyncio.sleep(0.01)
    buffer.offer(chunk(acked=True))
    assert len(await taking) == 2


async def test_gathering_ends_after_the_interval() -> None:
    buffer = RingBuffer(100, 1000)
    buffer.offer(chunk())
    assert len(await buffer.take(3, linger=0.01)) == 1


async def test_empty_waits_for_the_last_settled() -> None:
    buffer = RingBuffer(100, 1000)
    buffer.offer(chunk())
    emptied = asyncio.create_task(buffer.empty())
    taken = await buffer.take(10, 0)
    await asyncio.sleep(0)
    assert not emptied.done()
    buffer.settle(taken)
    await emptied


async def test_nothing_gathers_once_the_end_is_awaited() -> None:
    buffer = RingBuffer(100, 1000)
    buffer.offer(chunk())
    taking = asyncio.create_task(buffer.take(10, linger=60))
    await asyncio.sleep(0.01)
    emptied = asyncio.create_task(buffer.empty())
    buffer.settle(await taking)
    await emptied
