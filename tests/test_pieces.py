"""A Parquet file in pieces: any of its row groups is read without the others, and damage is found in it alone."""

from io import BytesIO
from itertools import combinations

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logagg.sinks.pieces import Pieces

SIZE = 100


def written(frame: pl.DataFrame, **options: object) -> bytes:
    file = BytesIO()
    settings: dict[str, object] = {"compression": "zstd", "statistics": False, "row_group_size": SIZE, **options}
    frame.write_parquet(file, **settings)  # type: ignore[arg-type]
    return file.getvalue()


def frame_of(count: int) -> pl.DataFrame:
    place = pl.int_range(count)
    columns = {
        "id": place,
        "text": pl.format("{} of {}", place, pl.lit(count)),
        "few": (place % 3).cast(pl.String),
        "flag": place % 2 == 0,
        "real": place / 7,
        "none": pl.lit(None).cast(pl.Binary),
    }
    return pl.select(place.alias("at")).select(column.alias(name) for name, column in columns.items())


def group(file: bytes, place: int) -> pl.DataFrame:
    return pl.scan_parquet(BytesIO(file), use_statistics=False).slice(place * SIZE, SIZE).collect()


def fetched(file: bytes, pieces: Pieces, groups: list[int]) -> list[bytes]:
    return [file[start : start + length] for start, length in pieces.needed(groups)]


@pytest.mark.parametrize("options", [{}, {"compression": "lz4"}, {"statistics": True}, {"data_page_size": 100}])
@pytest.mark.parametrize("count", [1, SIZE - 1, SIZE, SIZE + 1, 5 * SIZE, 20 * SIZE + 7])
def test_any_group_is_read_with_the_footer_and_nothing_else(count: int, options: dict[str, object]) -> None:
    frame = frame_of(count)
    file = written(frame, **options)
    pieces = Pieces.of(file)
    assert len(pieces.ends) == -(-count // SIZE) + 1
    assert pieces.ends[-1] == len(file)
    for place in range(len(pieces.ends) - 1):
        alone = pieces.joined([place], fetched(file, pieces, [place]))
        assert group(alone, place).equals(frame.slice(place * SIZE, SIZE))


def test_several_groups_in_any_order() -> None:
    frame = frame_of(4 * SIZE)
    file = written(frame)
    pieces = Pieces.of(file)
    for places in (list(some) for size in range(5) for some in combinations(range(4), size)):
        joined = pieces.joined(places[::-1], fetched(file, pieces, places[::-1]))
        assert all(group(joined, place).equals(frame.slice(place * SIZE, SIZE)) for place in places)


def test_a_flipped_bit_of_any_piece_is_found_in_it() -> None:
    file = written(frame_of(3 * SIZE))
    pieces = Pieces.of(file)
    for place, end in enumerate(pieces.ends):
        start = end - 2
        damaged = file[:start] + bytes([file[start] ^ 4]) + file[start + 1 :]
        for wanted in range(3):
            parts = fetched(damaged, pieces, [wanted])
            if place in (wanted, 3):
                with pytest.raises(ValueError, match="differ from their checksum"):
                    pieces.joined([wanted], parts)
            else:
                assert len(pieces.joined([wanted], parts)) == len(file)


def test_a_piece_of_another_length_is_damaged() -> None:
    file = written(frame_of(3 * SIZE))
    pieces = Pieces.of(file)
    first, footer = fetched(file, pieces, [0])
    for parts in ([first[:-1], footer], [first, b""], [footer, first]):
        with pytest.raises(ValueError, match="differ from their checksum"):
            pieces.joined([0], parts)


def test_they_are_stored_behind_something_and_behind_each_other() -> None:
    one, other, none = Pieces.of(written(frame_of(250))), Pieces.of(written(frame_of(1))), Pieces.of(b"")
    stored = b"1234" + one.pack() + none.pack() + other.pack()
    at, found = 4, []
    for _ in range(4):
        pieces, at = Pieces.unpack(stored, at)
        found.append(pieces)
    assert found == [one, none, other, none]  # there is nothing behind the third
    for cut in range(4, 4 + len(one.pack())):
        assert Pieces.unpack(stored[:cut], 4)[0] == none


@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=5), st.integers(0, 50))
@example([2, 1], 0)
@example([0, 1], 0)
@example([1, (1 << 32) - 1], 0)
def test_what_is_stored_may_be_damaged_too(ends: list[int], cut: int) -> None:
    """Whatever is found can be asked of PostgreSQL: it lies in order, and within what it counts."""
    stored = Pieces(tuple(ends), tuple(range(len(ends)))).pack()
    found, _ = Pieces.unpack(stored[: len(stored) - cut], 0)
    assert found.ends in ((), tuple(ends))
    assert list(found.ends) == sorted(set(found.ends))
    assert all(0 < end < 1 << 31 for end in found.ends)


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"PAR1",
        b"PAR1PAR1",
        b"x" * 100 + b"\x00\x00\x00\x00PAR1",
        b"x" * 100 + b"\xff\xff\xff\x7fPAR1",
        b"\x15" * 100 + b"\x20\x00\x00\x00PAR1",
        b"\xff" * 100 + b"\x60\x00\x00\x00PAR1",
        written(frame_of(250))[:-1],
    ],
)
def test_what_is_no_parquet_file_has_no_pieces(file: bytes) -> None:
    assert Pieces.of(file) == Pieces((), ())


def test_a_file_without_records_is_its_footer() -> None:
    file = written(frame_of(0))
    pieces = Pieces.of(file)
    assert pieces.ends == (len(file),)
    assert pieces.joined([], fetched(file, pieces, [])) == file
