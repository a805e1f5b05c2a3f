"""Reading packed batches: columns, what the filters say, summaries; decoded ones are kept in a bounded cache."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakValueDictionary

import asyncpg
import numpy as np
import polars as pl
import structlog

from logagg.sinks import filters, frames, packing, words
from logagg.sinks.batches import BatchInfo, Loaded, among
from logagg.sinks.cache import Cache
from logagg.sinks.errors import BlobDamaged, StoreError, StoreUnavailable, unavailable
from logagg.sinks.pieces import Pieces
from logagg.sinks.threads import read_in_thread

log = structlog.get_logger("packed")

_PARTS = {"head": packing.HEAD, "body": packing.BODY}
#: `%s` are names out of `_PARTS`. A part is null for a batch that is not packed.
_BLOBS = "select packed_at, checksums, %s from batches where batch = $1"
_CHECKSUMS = "select packed_at, checksums from batches where batch = $1"
#: Starts and lengths of what is wanted of the head, and of the body. No more of them is read, for they are stored as
#: they are, in chunks.
_PIECES = """
select packed_at,
    array(select substr(head, at + 1, size) from unnest($2::int[], $3::int[]) with ordinality as a (at, size, place)
        order by place) as head,
    array(select substr(body, at + 1, size) from unnest($4::int[], $5::int[]) with ordinality as a (at, size, place)
        order by place) as body
from batches where batch = $1
"""
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
#: Bytes that the pieces of a batch take in memory, about.
_KNOWN = 3000
#: An empty frame: there is no summary.
_NONE = pl.DataFrame(schema=packing.SUMMARY)


class Reader(Protocol):
    """Gives a connection to read with: `Connections.reader`."""

    def __call__(self) -> AbstractAsyncContextManager[asyncpg.Connection]:
        """Return a context manager that gives a connection."""


class _Rewritten(Exception):
    """The packed form of a batch is of another version than the one that was asked for."""

    def __init__(self, version: int) -> None:
        self.version = version


@dataclass(frozen=True)
class _File:
    """A part of a packed batch as it was fetched: the whole of it, or what some row groups need."""

    parts: Sequence[bytes]
    #: Of the whole; None for one that was compared with them already, or is older than they are.
    checksums: bytes | None = None
    pieces: Pieces | None = None

    @property
    def size(self) -> int:
        """In bytes, as it came."""
        return sum(map(len, self.parts))

    def read(self, part: str, columns: Sequence[str], groups: Sequence[int] | None) -> pl.DataFrame:
        """Decode columns of these row groups, None is all. Raises any error for what is damaged."""
        if groups is not None and self.pieces:
            return packing.read_groups(self.pieces.joined(groups, self.parts), columns, groups)
        blob = packing.checked(self.parts[0], self.checksums, part)
        return packing.read(blob, columns) if groups is None else packing.read_groups(blob, columns, groups)


class PackedReader:
    """Reads packed batches. `cache_bytes` bounds the columns and summaries that it keeps, decoded.

    All columns of an answer are of one version, that of the batch if it is there still: records may have been taken out
    since it was listed, and two columns of different versions would not fit together.
    """

    def __init__(self, reader: Reader, cache_bytes: int, replica: Reader | None = None) -> None:
        """Ask the replica first, if there is one, and `reader` for what that does not give."""
        self._reader = reader
        self._replica = replica
        self._columns: Cache[tuple[int, int, str], pl.Series] = Cache(cache_bytes)
        self._summaries: Cache[tuple[int, int], pl.DataFrame] = Cache(cache_bytes // 4)
        #: Parts as they were fetched: a record that is found in a batch is read from it in the next moment.
        self._blobs: Cache[tuple[int, int, str], bytes] = Cache(cache_bytes // 4)
        self._pieces: Cache[tuple[int, int], dict[str, Pieces]] = Cache(cache_bytes // 16)
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

    @staticmethod
    async def _of_one_version(batch: BatchInfo, work: Callable[[int], Awaitable[Loaded]]) -> Loaded:
        version = batch.version
        while True:
            try:
                return await work(version)
            except _Rewritten as found:
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
        places = await self._load(number, version, ["id"])
        wanted, groups = await read_in_thread(_places, places.frame["id"], ids)
        if not groups or len(groups) * packing.GROUP * 2 > len(wanted):
            loaded = await self._load(number, version, columns)
            return Loaded(await read_in_thread(loaded.frame.filter, wanted), places.fetched + loaded.fetched)
        found, fetched = await self._read(number, version, columns, groups)
        if found is None:
            return Loaded(frames.empty(columns), 0)
        rows = pl.concat([wanted[group * packing.GROUP : (group + 1) * packing.GROUP] for group in groups])
        frame = pl.DataFrame([found[name] for name in columns])
        return Loaded(await read_in_thread(frame.filter, rows), places.fetched + fetched)

    async def _read(
        self, number: int, version: int, columns: Sequence[str], groups: Sequence[int] | None = None
    ) -> tuple[dict[str, pl.Series] | None, int]:
        """Return columns of a batch, or of some of its row groups, None when the batch is gone.

        And how many bytes were fetched. Head and body are decoded in threads of their own.
        """
        wanted = {part: some for part, names in _PARTS.items() if (some := [name for name in columns if name in names])}
        files = {
            part: _File([blob]) for part in wanted if (blob := self._blobs.get((number, version, part))) is not None
        }
        missing = [part for part in wanted if part not in files]
        fresh = await self._fetched(number, version, missing, groups)
        if fresh is None:
            return None, 0
        files |= fresh
        parts = (read_in_thread(_decoded, number, part, files[part], wanted[part], groups) for part in wanted)
        found: dict[str, pl.Series] = {}
        for decoded in await asyncio.gather(*parts):
            found |= decoded
        for part, file in fresh.items():
            if file.pieces is None:
                self._blobs.put((number, version, part), file.parts[0], file.size)
        return found, sum(file.size for file in fresh.values())

    async def _fetched(
        self, number: int, version: int, parts: Sequence[str], groups: Sequence[int] | None
    ) -> "dict[str, _File] | None":
        """Return parts of a batch as they are stored, or what these row groups need; None when the batch is gone."""
        if not parts:
            return {}
        if groups is not None:
            pieces = await self._pieces_of(number, version)
            if pieces is None:
                return None
            if all(pieces[part].ends for part in parts):
                return await self._fetched_pieces(number, version, {part: pieces[part] for part in parts}, groups)
        row = await self._row(_BLOBS % ", ".join(parts), number, version)
        if row is None:
            return None
        self._know(number, version, row["checksums"])
        return {part: _File([row[part]], checksums=row["checksums"]) for part in parts}

    async def _fetched_pieces(
        self, number: int, version: int, pieces: dict[str, Pieces], groups: Sequence[int]
    ) -> "dict[str, _File] | None":
        ranges = (pieces[part].needed(groups) if part in pieces else () for part in _PARTS)
        bounds = [[bound[place] for bound in some] for some in ranges for place in (0, 1)]
        row = await self._row(_PIECES, number, version, *bounds)
        return None if row is None else {part: _File(row[part], pieces=some) for part, some in pieces.items()}

    async def _pieces_of(self, number: int, version: int) -> dict[str, Pieces] | None:
        if (known := self._pieces.get((number, version))) is not None:
            return known
        row = await self._row(_CHECKSUMS, number, version)
        return None if row is None else self._know(number, version, row["checksums"])

    def _know(self, number: int, version: int, checksums: bytes | None) -> dict[str, Pieces]:
        pieces = packing.pieces(checksums)
        self._pieces.put((number, version), pieces, _KNOWN)
        return pieces

    async def _row(self, query: str, number: int, version: int, *arguments: object) -> dict[str, Any] | None:
        """Return what a query says of a packed batch; None when the batch is gone.

        Raises StoreError for a batch that is not packed, and _Rewritten.
        """
        if self._replica:
            with suppress(StoreUnavailable):
                async with self._replica() as con:
                    row = await con.fetchrow(query, number, *arguments)
                if row and row["packed_at"] == version:
                    return dict(row)
        with unavailable():
            async with self._reader() as con:
                row = await con.fetchrow(query, number, *arguments)
        if row is None:
            return None
        stored = dict(row)
        if stored["packed_at"] is None or any(stored.get(part, b"") is None for part in _PARTS):
            message = f"batch {number} is not packed"
            raise StoreError(message)
        if stored["packed_at"] != version:
            raise _Rewritten(stored["packed_at"])
        return stored

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


def _places(found: pl.Series, ids: Sequence[int]) -> tuple[pl.Series, list[int]]:
    """Tell which ids of a batch are among those, and the row groups in which they are."""
    wanted = among(found, ids)
    return wanted, sorted(set((wanted.arg_true() // packing.GROUP).to_list()))


def _decoded(
    number: int, part: str, file: _File, columns: Sequence[str], groups: Sequence[int] | None
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
