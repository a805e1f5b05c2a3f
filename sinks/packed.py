"""Reading packed batches: columns, what the filters say, summaries; decoded ones are kept in a bounded cache."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple
from weakref import WeakValueDictionary

import asyncpg
import numpy as np
import numpy.typing as npt
import polars as pl
import structlog

from logagg.sinks import filters, frames, packing, words
from logagg.sinks.batches import BatchInfo, Loaded, among
from logagg.sinks.blobs import PARTS, Blobs, File, Reader, Rewritten
from logagg.sinks.cache import Cache
from logagg.sinks.errors import BlobDamaged, StoreUnavailable, unavailable
from logagg.sinks.threads import read_in_thread

log = structlog.get_logger("packed")

#: Tells which records of some columns are wanted.
Chosen = Callable[[pl.DataFrame], pl.Series]
#: Of records in their batch, ascending.
Places = npt.NDArray[np.int64]

#: One row a batch, with the blocks of all words behind each other. $2 are the upper halves of the hashes: see
#: `filters.block_of`. Neither the length of the filter nor a block of it needs the whole filter to be read.
_BLOCKS = """
select batch, packed_at, octet_length(filter), string_agg(
    substr(filter, (((high * (octet_length(filter) / 32)) >> 32) * 32 + 1)::integer, 32), ''::bytea order by place
)
from batches, unnest($2::bigint[]) with ordinality as asked (high, place)
where batch = any($1::bigint[]) and octet_length(filter) >= 32
group by batch
"""
_SUMMARIES = """
select batch, packed_at, checksums, summary from batches where batch = any($1::bigint[]) and packed_at is not null
"""
_SUMMARY = "summary"
#: Of so many records that were chosen it is kept where they stand; and the bytes that one takes, about.
_FEW, _ROW = 2000, 150
#: An empty frame: there is no summary.
_NONE = pl.DataFrame(schema=packing.SUMMARY)


class _Rows(NamedTuple):
    """Where some records of a batch stand, by id, and how many it has."""

    height: int
    places: dict[int, int]


class PackedReader:
    """Reads packed batches. `cache_bytes` bounds the columns and summaries that it keeps, decoded.

    All columns of an answer are of one version, that of the batch if it is there still: records may have been taken out
    since it was listed, and two columns of different versions would not fit together.
    """

    def __init__(self, reader: Reader, cache_bytes: int, replica: Reader | None = None) -> None:
        """Ask the replica first, if there is one, and `reader` for what that does not give."""
        self._reader = reader
        self._replica = replica
        self._blobs = Blobs(reader, replica, cache_bytes // 4)
        self._columns: Cache[tuple[int, int, str], pl.Series] = Cache(cache_bytes)
        self._summaries: Cache[tuple[int, int], pl.DataFrame] = Cache(cache_bytes // 4)
        #: Where in its batch a record stands that was found just now, for it is read in the next moment.
        self._found: Cache[tuple[int, int], _Rows] = Cache(cache_bytes // 16)
        #: While a batch is loaded, others that want it wait, and find it in the cache.
        self._loading: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def load(self, batch: BatchInfo, columns: Sequence[str]) -> Loaded:
        """Return columns of frames.FULL of a packed batch; no records of one that retention has dropped meanwhile.

        Raises BlobDamaged, StoreUnavailable, and StoreError for a batch that is not packed.
        """
        return await self._of_one_version(batch, lambda version: self._load(batch.batch, version, columns))

    async def take(self, batch: BatchInfo, columns: Sequence[str], ids: Sequence[int]) -> Loaded:
        """Return the records with these ids, otherwise as `load`.

        When they stand in few row groups only these are decoded.
        """
        return await self._of_one_version(batch, lambda version: self._take(batch.batch, version, columns, ids))

    async def select(self, batch: BatchInfo, columns: Sequence[str], chosen: Chosen) -> Loaded:
        """Return the records that `chosen` tells by these columns, in a thread; otherwise as `load`.

        With their ids among the columns, `take` knows where they stand, for it is called in the next moment.
        """
        return await self._of_one_version(batch, lambda version: self._select(batch.batch, version, columns, chosen))

    @staticmethod
    async def _of_one_version(batch: BatchInfo, work: Callable[[int], Awaitable[Loaded]]) -> Loaded:
        version = batch.version
        while True:
            try:
                return await work(version)
            except Rewritten as found:
                version = found.version

    async def _load(self, number: int, version: int, columns: Sequence[str]) -> Loaded:
        async with self._loading.setdefault(number, asyncio.Lock()):
            keys = {name: (number, version, name) for name in columns}
            held = {name: series for name, key in keys.items() if (series := self._columns.get(key)) is not None}
            missing = [name for name in columns if name not in held]
            if not missing:
                return Loaded(pl.DataFrame([held[name] for name in columns]), 0)
            found, fetched = await self._read(number, version, missing)
            if found is None:
                return Loaded(frames.empty(columns), 0)
            held |= found
            for name in missing:
                self._columns.put(keys[name], held[name], int(held[name].estimated_size()))
        return Loaded(pl.DataFrame([held[name] for name in columns]), fetched)

    async def _take(self, number: int, version: int, columns: Sequence[str], ids: Sequence[int]) -> Loaded:
        rows = self._found.get((number, version))
        if rows and len(ids) <= len(rows.places) and all(id_ in rows.places for id_ in ids):
            places = np.array(sorted({rows.places[id_] for id_ in ids}), dtype=np.int64)
            return await self._at(number, version, columns, rows.height, places)
        told = await self._load(number, version, ["id"])
        _, places = await read_in_thread(_selected, told.frame, lambda frame: among(frame["id"], ids))
        found = await self._at(number, version, columns, told.frame.height, places)
        return found._replace(fetched=told.fetched + found.fetched)

    async def _select(self, number: int, version: int, columns: Sequence[str], chosen: Chosen) -> Loaded:
        whole = await self._load(number, version, columns)
        found, places = await read_in_thread(_selected, whole.frame, chosen)
        if "id" in columns and len(places) <= _FEW:
            rows = _Rows(whole.frame.height, dict(zip(found["id"].to_list(), places.tolist(), strict=True)))
            self._found.put((number, version), rows, _ROW * (len(places) + 1))
        return whole._replace(frame=found)

    async def _at(self, number: int, version: int, columns: Sequence[str], height: int, places: Places) -> Loaded:
        """Return the records at these places, ascending, of a batch of so many."""
        groups = np.unique(places // packing.GROUP)
        if not len(groups):
            return Loaded(frames.empty(columns), 0)
        if len(groups) * packing.GROUP * 2 > height:
            loaded = await self._load(number, version, columns)
            whole = loaded.frame
            return loaded._replace(frame=await read_in_thread(whole.__getitem__, places) if whole.height else whole)
        found, fetched = await self._read(number, version, columns, groups.tolist())
        if found is None:
            return Loaded(frames.empty(columns), 0)
        inside = np.searchsorted(groups, places // packing.GROUP) * packing.GROUP + places % packing.GROUP
        frame = pl.DataFrame([found[name] for name in columns])
        return Loaded(await read_in_thread(frame.__getitem__, inside), fetched)

    async def _read(
        self, number: int, version: int, columns: Sequence[str], groups: Sequence[int] | None = None
    ) -> tuple[dict[str, pl.Series] | None, int]:
        """Return columns of a batch, or of some of its row groups, None when the batch is gone.

        And how many bytes were fetched. Head and body are decoded in threads of their own.
        """
        wanted = {part: some for part, names in PARTS.items() if (some := [name for name in columns if name in names])}
        files = await self._blobs.fetch(number, version, list(wanted), groups)
        if files is None:
            return None, 0
        parts = (read_in_thread(_decoded, number, part, files[part], wanted[part], groups) for part in wanted)
        found: dict[str, pl.Series] = {}
        for decoded in await asyncio.gather(*parts):
            found |= decoded
        self._blobs.keep(number, version, files)
        return found, sum(file.fetched for file in files.values())

    async def may_hold(self, batches: Sequence[BatchInfo], asked: Sequence[str]) -> dict[int, list[bool]]:
        """Tell for each batch which words it may hold; batches without a filter are absent.

        A word that the filters do not know (see `words.known`) may be anywhere.
        """
        if not batches or not asked:
            return {}
        places = [place for place, word in enumerate(asked) if words.known(word)]
        hashes = filters.hash_words([asked[place] for place in places])
        high = (hashes >> np.uint64(32)).astype(np.int64).tolist()
        rows = await self._rows(_BLOCKS, batches, high) if high else []
        if not rows:
            return {}
        held = np.ones((len(rows), len(asked)), dtype=bool)
        answers = filters.may_hold(b"".join(row[3] for row in rows), [row[2] for row in rows], hashes)
        held[:, places] = answers.held
        for place in np.flatnonzero(~answers.whole.all(axis=1)).tolist():
            log.warning("a token filter is damaged; questions read its batch instead", batch=rows[place][0])
        return dict(zip((row[0] for row in rows), held.tolist(), strict=True))

    async def summaries(self, batches: Sequence[BatchInfo]) -> dict[int, pl.DataFrame]:
        """Return the summaries of batches, see packing.SUMMARY; those that have none are absent.

        A damaged one is absent, too: what it tells can be counted.
        """
        held = {batch.batch: self._summaries.get((batch.batch, batch.version)) for batch in batches}
        found = {number: frame for number, frame in held.items() if frame is not None}
        missing = [batch for batch in batches if batch.batch not in found]
        if missing:
            decoded = await read_in_thread(_decoded_summaries, await self._rows(_SUMMARIES, missing))
            for (number, version), frame in decoded.items():
                self._summaries.put((number, version), frame, int(frame.estimated_size()) + 1)
                found[number] = frame
        return {number: frame for number, frame in found.items() if len(frame)}

    async def _rows(self, query: str, batches: Sequence[BatchInfo], *arguments: object) -> list[asyncpg.Record]:
        """Return what a query says of batches, a row each: of the replica those of the version that was asked for."""
        versions = {batch.batch: batch.version for batch in batches}
        rows: list[asyncpg.Record] = []
        if self._replica:
            with suppress(StoreUnavailable):
                async with self._replica() as con:
                    found = await con.fetch(query, list(versions), *arguments)
                rows = [row for row in found if versions[row["batch"]] == row["packed_at"]]
        left = list(versions.keys() - {row["batch"] for row in rows})
        if left:
            with unavailable():
                async with self._reader() as con:
                    rows += await con.fetch(query, left, *arguments)
        return rows


def _selected(frame: pl.DataFrame, chosen: Chosen) -> tuple[pl.DataFrame, Places]:
    """Return the records that are chosen, and where they stand."""
    mask = chosen(frame)
    return frame.filter(mask), np.flatnonzero(mask.to_numpy())


def _decoded(
    number: int, part: str, file: File, columns: Sequence[str], groups: Sequence[int] | None
) -> dict[str, pl.Series]:
    """Return columns out of a part of a batch, or out of some of its row groups. Raises BlobDamaged."""
    try:
        return file.read(part, columns, groups).to_dict()
    except packing.Damaged as error:
        message = f"batch {number}: {error}"
        raise BlobDamaged(message) from error
    except (Exception, pl.exceptions.PanicException) as error:
        message = f"batch {number}: {part}: {error}"
        raise BlobDamaged(message) from error


def _decoded_summaries(rows: Sequence[asyncpg.Record]) -> dict[tuple[int, int], pl.DataFrame]:
    return {(number, version): _decoded_summary(blob, checksums) for number, version, checksums, blob in rows}


def _decoded_summary(blob: bytes | None, checksums: bytes | None) -> pl.DataFrame:
    if blob is None:
        return _NONE
    try:
        return packing.read_summary(packing.checked(blob, checksums, _SUMMARY))
    except (Exception, pl.exceptions.PanicException):
        return _NONE
