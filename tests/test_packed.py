import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import polars as pl
import pytest

from logagg.sinks import packing
from logagg.sinks.batches import BatchInfo
from logagg.sinks.blobs import Blobs
from logagg.sinks.cache import Cache
from logagg.sinks.connections import Connections
from logagg.sinks.errors import BlobDamaged, StoreError
from logagg.sinks.frames import FULL
from logagg.sinks.packed import PackedReader
from logagg.sinks.pieces import Pieces

MB = 1 << 20
COLUMNS = ["id", "service", "message"]
_INSERT = """
insert into batches (owner, closed_at, packed_at, count, head, body, filter, summary, checksums)
values (1, now(), '2000-01-01Z', $1, $2, $3, $4, $5, $6) returning batch
"""


def records(count: int, word: str = "nothing", service: str = "api") -> pl.DataFrame:
    moment = pl.lit(datetime(2026, 11, 20, 12, tzinfo=UTC)).cast(FULL["timestamp"])
    base = {"timestamp": moment, "received_at": moment, "severity": pl.lit(6), "service": pl.lit(service)}
    place = pl.int_range(count)
    base |= {"message": pl.format("{} of {}", pl.lit(word), place), "attributes": pl.format('{{"place":{}}}', place)}
    return pl.select(place.alias("id")).with_columns(
        base.get(name, pl.lit(None)).cast(kind).alias(name) for name, kind in FULL.items() if name != "id"
    )


def info(number: int) -> BatchInfo:
    return BatchInfo(number, False, None, None, None, None, None, None, None, None, packed=True)


@pytest.fixture
async def connections(database_url: str) -> AsyncIterator[Connections]:
    connections = Connections(database_url, 1)
    await connections.open()
    yield connections
    await connections.close()


async def put(connections: Connections, frame: pl.DataFrame) -> int:
    packed = await asyncio.to_thread(packing.pack, frame)
    async with connections.writer() as con:
        number: int = await con.fetchval(_INSERT, len(frame), *packed)
    return number


async def change(connections: Connections, statement: str, number: int) -> None:
    async with connections.writer() as con:
        await con.execute(statement, number)


async def test_columns_of_head_and_body_are_of_the_same_records(connections: Connections) -> None:
    frame = records(1000)
    number = await put(connections, frame)
    reader = PackedReader(connections.reader, MB)
    loaded = await reader.load(info(number), list(FULL))
    assert loaded.frame.sort("id").select(list(FULL)).equals(frame.select(list(FULL)))
    assert loaded.fetched > 0
    assert (await reader.load(info(number), ["message"])).frame.columns == ["message"]
    assert (await reader.load(info(number), [])).frame.width == 0


async def test_what_was_decoded_is_not_fetched_again_unless_the_cache_is_too_small(connections: Connections) -> None:
    number = await put(connections, records(1000))
    for size, again in ((MB, False), (100, True)):
        reader = PackedReader(connections.reader, size)
        first = await reader.load(info(number), COLUMNS)
        second = await reader.load(info(number), ["message", "id"])
        assert second.frame.equals(first.frame.select("message", "id"))
        assert bool(second.fetched) is again
        more = await reader.load(info(number), ["id", "timestamp"])
        assert bool(more.fetched) is again


async def test_many_that_want_the_same_fetch_it_once(connections: Connections) -> None:
    number = await put(connections, records(1000))
    reader = PackedReader(connections.reader, MB)
    loaded = await asyncio.gather(*(reader.load(info(number), COLUMNS) for _ in range(10)))
    assert sum(each.fetched > 0 for each in loaded) == 1
    assert all(each.frame.equals(loaded[0].frame) for each in loaded)


@pytest.mark.parametrize("places", [[], [5], [5, 8191], [8192], [3, 19_999], [1, 9000, 17_000], [20_000]])
async def test_records_by_id_are_those_of_the_whole_batch(connections: Connections, places: list[int]) -> None:
    frame = records(20_000)  # three row groups
    number = await put(connections, frame)
    reader = PackedReader(connections.reader, MB)
    expected = frame.filter(pl.col("id").is_in(places)).select(COLUMNS)
    for _ in range(2):  # fetched, and out of the cache
        taken = await reader.take(info(number), COLUMNS, places)
        assert taken.frame.sort("id").equals(expected)


@pytest.mark.parametrize("packed_before", ["with pieces", "fewer pieces", "checksums alone", "no checksums"])
async def test_a_record_is_read_from_a_piece_of_its_batch(connections: Connections, packed_before: str) -> None:
    """Of batches that were packed before there were pieces, or checksums, from the whole."""
    frame = records(60_000)
    number = await put(connections, frame)
    if packed_before == "checksums alone":
        await change(connections, "update batches set checksums = substr(checksums, 1, 16) where batch = $1", number)
    if packed_before == "fewer pieces":  # than it has row groups, so they are damaged
        fewer = Pieces((1000, 2000), (7, 8)).pack().hex()
        cut = (
            f"update batches set checksums = substr(checksums, 1, 16) || decode('{fewer * 2}', 'hex') where batch = $1"  # noqa: S608
        )
        await change(connections, cut, number)
    if packed_before == "no checksums":
        await change(connections, "update batches set checksums = null where batch = $1", number)
    sizes = "select octet_length(head) + octet_length(body) from batches where batch = $1"
    async with connections.writer() as con:
        whole = await con.fetchval(sizes, number)
    reader = PackedReader(connections.reader, 8 * MB)
    await reader.load(info(number), ["id"])
    reader._blobs = Blobs(connections.reader, None, 8 * MB)
    for place in (40_000, 59_999, 20_000):
        taken = await reader.take(info(number), COLUMNS, [place])
        assert taken.frame.equals(frame.filter(pl.col("id") == place).select(COLUMNS))
        if packed_before == "with pieces":
            assert 0 < taken.fetched < whole / 3
    reader._found = Cache(MB)
    reader._blobs = Blobs(connections.reader, None, 8 * MB)
    taken = await reader.take(info(number), COLUMNS, [40_001])
    assert taken.frame.equals(frame.filter(pl.col("id") == 40_001).select(COLUMNS))


@pytest.mark.parametrize("places", [[], [0], [59_999], [3, 4, 20_000], range(0, 60_000, 9), range(60_000)])
async def test_records_are_chosen_by_some_columns(connections: Connections, places: Sequence[int]) -> None:
    """And found again by their ids."""
    frame = records(60_000)
    number = await put(connections, frame)
    reader = PackedReader(connections.reader, 8 * MB)
    ids = pl.Series(list(places), dtype=pl.Int64)
    expected = frame.filter(pl.col("id").is_in(ids.implode()))
    for columns in (["timestamp", "id"], list(FULL)):
        chosen = await reader.select(info(number), columns, lambda told: told["id"].is_in(ids.implode()))
        assert chosen.frame.sort("id").equals(expected.select(columns))
    taken = await reader.take(info(number), ["id", *COLUMNS[1:]], ids.to_list())
    assert taken.frame.sort("id").equals(expected.select(COLUMNS))
    some = ids.to_list()[:1]
    taken = await reader.take(info(number), COLUMNS, some)
    assert taken.frame.equals(expected.select(COLUMNS).filter(pl.col("id").is_in(some)))


async def test_what_was_chosen_is_of_the_version_it_was_chosen_in(connections: Connections) -> None:
    number = await put(connections, records(60_000))
    reader = PackedReader(connections.reader, 8 * MB)

    def last(told: pl.DataFrame) -> pl.Series:
        return told["id"] == 59_999

    before = info(number)
    assert (await reader.select(before, ["id"], last)).frame["id"].to_list() == [59_999]
    packed = await asyncio.to_thread(packing.pack, records(60_000).filter(pl.col("id") % 3 > 0))
    async with connections.writer() as con:
        await con.execute(_REWRITE, number, packed.head, packed.body, packed.checksums)
    for known in (before, before._replace(version=1)):
        assert (await reader.take(known, COLUMNS, [59_999])).frame["id"].to_list() == [59_999]
        assert (await reader.take(known, COLUMNS, [59_998, 59_997])).frame["id"].to_list() == [59_998]
        assert (await reader.select(known, COLUMNS, last)).frame["id"].to_list() == [59_999]
    async with connections.writer() as con:
        await con.execute("delete from batches where batch = $1", number)
    reader._blobs = Blobs(connections.reader, None, 8 * MB)
    assert (await reader.take(before._replace(version=1), list(FULL), [59_999])).frame.height == 0


async def test_damage_of_one_piece_concerns_no_other(connections: Connections) -> None:
    number = await put(connections, records(60_000))
    flip = "update batches set body = set_bit(body, 2000, 1 - get_bit(body, 2000)) where batch = $1"
    await change(connections, flip, number)
    reader = PackedReader(connections.reader, 8 * MB)
    assert len((await reader.take(info(number), COLUMNS, [50_000])).frame) == 1
    for _ in range(2):
        with pytest.raises(BlobDamaged, match=f"^batch {number}: body: .* differ from their checksum"):
            await reader.take(info(number), COLUMNS, [5])


async def test_damage_is_found_when_a_record_is_read(connections: Connections) -> None:
    number = await put(connections, records(20_000))
    flip = "update batches set body = set_bit(body, 2000, 1 - get_bit(body, 2000)) where batch = $1"
    await change(connections, flip, number)
    reader = PackedReader(connections.reader, MB)
    for _ in range(2):  # what is damaged is not kept
        with pytest.raises(BlobDamaged, match=f"^batch {number}: body: .* differ from their checksum"):
            await reader.take(info(number), COLUMNS, [5])


async def test_a_batch_that_is_gone_has_no_records(connections: Connections) -> None:
    reader = PackedReader(connections.reader, MB)
    loaded = await reader.load(info(99), COLUMNS)
    assert (loaded.frame.columns, loaded.frame.height, loaded.fetched) == (COLUMNS, 0, 0)
    assert await reader.may_hold([info(99)], ["word"]) == {}
    assert await reader.summaries([info(99)]) == {}


async def test_a_batch_that_is_not_packed_is_an_error(connections: Connections) -> None:
    number = await put(connections, records(10))
    await change(connections, "update batches set head = null where batch = $1", number)
    reader = PackedReader(connections.reader, MB)
    with pytest.raises(StoreError, match=f"batch {number} is not packed"):
        await reader.load(info(number), ["id"])
    assert len((await reader.load(info(number), ["message"])).frame) == 10


_REWRITE = """
update batches set head = $2, body = $3, checksums = $4, packed_at = packed_at + interval '1 microsecond'
where batch = $1
"""


@pytest.mark.parametrize("held", [["id"], ["message"], ["id", "message"], []])
async def test_all_of_an_answer_is_of_one_version(connections: Connections, held: list[str]) -> None:
    """Whatever the cache has of the version before; and both versions are there to those who ask for them."""
    before, after = records(1000), records(1000).filter(pl.col("id") % 3 > 0)
    number = await put(connections, before)
    reader = PackedReader(connections.reader, MB)
    if held:
        await reader.load(info(number), held)
    packed = await asyncio.to_thread(packing.pack, after)
    async with connections.writer() as con:
        await con.execute(_REWRITE, number, packed.head, packed.body, packed.checksums)
    frames = {1000: before, 666: after}
    for version in (0, 1):
        known = info(number)._replace(version=version)
        frame = (await reader.load(known, COLUMNS)).frame
        assert frame.height == (1000 if len(held) > 1 and not version else 666)
        assert frame.sort("id").equals(frames[frame.height].select(COLUMNS))
        taken = (await reader.take(known, COLUMNS, range(10))).frame
        assert taken.sort("id").equals(frames[frame.height].select(COLUMNS).filter(pl.col("id") < 10))


@pytest.mark.parametrize("checksums", ["checksums", "null"])
@pytest.mark.parametrize("part", ["head", "body"])
async def test_a_damaged_blob_is_named(connections: Connections, part: str, checksums: str) -> None:
    number = await put(connections, records(1000))
    damage = (
        "update batches set part = overlay(part placing '\\xff00ff' from octet_length(part) - 7 for 3), checksums = "
    )
    await change(connections, f"{damage.replace('part', part)}{checksums} where batch = $1", number)
    reader = PackedReader(connections.reader, MB)
    with pytest.raises(BlobDamaged, match=f"^batch {number}: {part}: "):
        await reader.load(info(number), COLUMNS)
    other = "message" if part == "head" else "id"
    assert len((await reader.load(info(number), [other])).frame) == 1000


async def test_one_flipped_bit_of_data_is_found(connections: Connections) -> None:
    number = await put(connections, records(1000))
    flip = "update batches set body = set_bit(body, 2000, 1 - get_bit(body, 2000)) where batch = $1"
    await change(connections, flip, number)
    with pytest.raises(BlobDamaged, match=f"^batch {number}: body: .* differ from their checksum"):
        await PackedReader(connections.reader, MB).load(info(number), ["message"])


async def test_filters_tell_which_words_may_be_where(connections: Connections) -> None:
    numbers = [await put(connections, records(500, word)) for word in ("Straße", "Жёлтый", "漢字")]
    reader = PackedReader(connections.reader, MB)
    asked = ["STRAẞE", "жёлтый", "漢字", "API", "place", "499", "nowhere"]
    always = [True, True, True, False]
    assert await reader.may_hold([*map(info, numbers)], asked) == {
        number: [place == i for i in range(3)] + always for place, number in enumerate(numbers)
    }
    odd = ["nowhere", "two words", "\U000377ff"]
    assert await reader.may_hold([info(numbers[0])], odd) == {numbers[0]: [False, True, True]}
    assert await reader.may_hold([*map(info, numbers)], []) == await reader.may_hold([], ["a"]) == {}


async def test_every_word_of_a_large_filter_is_found_by_its_block(connections: Connections) -> None:
    number = await put(connections, records(20_000))
    reader = PackedReader(connections.reader, MB)
    assert await reader.may_hold([info(number)], [str(i) for i in range(0, 20_000, 7)]) == {number: [True] * 2858}


async def test_a_batch_without_a_filter_may_hold_anything(connections: Connections) -> None:
    first, second = [await put(connections, records(10)) for _ in range(2)]
    await change(connections, "update batches set filter = ''::bytea where batch = $1", first)
    assert await PackedReader(connections.reader, MB).may_hold([info(first), info(second)], ["nowhere"]) == {
        second: [False]
    }


async def test_summaries_are_those_that_there_are(connections: Connections) -> None:
    frames = [records(100), records(1), records(200, service="kernel"), records(300)]
    numbers = [await put(connections, frame) for frame in frames]
    await change(connections, "update batches set summary = set_byte(summary, 30, 1) where batch = $1", numbers[3])
    reader = PackedReader(connections.reader, MB)
    for _ in range(2):
        found = await reader.summaries([info(number) for number in (*numbers, 99)])
        assert {number: frame.rows() for number, frame in found.items()} == {
            numbers[0]: [(29919600, None, "api", 6, 100)],
            numbers[2]: [(29919600, None, "kernel", 6, 200)],
        }


def test_the_cache_holds_what_was_used_last() -> None:
    cache: Cache[str, int] = Cache(10)
    for name, size in (("a", 4), ("b", 4)):
        cache.put(name, 1, size)
    assert cache.get("a") == 1
    cache.put("c", 2, 6)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), cache.size) == (1, None, 2, 10)
    cache.put("a", 3, 11)
    assert (cache.get("a"), cache.size) == (None, 6)
    cache.put("c", 4, 1)
    assert (cache.get("c"), cache.size) == (4, 1)
