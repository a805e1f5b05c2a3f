"""Many JSON objects to columns at once, a third of the cost of one record after the other.

It takes objects of one sender: the same names or a few sets of them, values as most are. All else `json_lines` takes,
which is the reference: where this module answers, both give the same records, and a test holds them to it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import orjson
import polars as pl

from logagg.protocols import jsontext
from logagg.protocols.columns import Columnar, from_records
from logagg.protocols.gathered import Gathered
from logagg.protocols.json_lines import decode_body as decode_body_one_by_one
from logagg.protocols.json_lines import decode_lines as decode_one_by_one
from logagg.protocols.json_lines import values_of
from logagg.protocols.mapping import from_object
from logagg.protocols.names import TREE, Shape, shape_of
from logagg.protocols.record import Decoded, Origin

#: Fewer frames than this cost more as a polars frame than as records. Each call of polars also lets go of the
#: interpreter's lock, and waits for it again while questions are answered.
FEW: Final = 200
#: So many objects are read, used and forgotten before the next are read: they stay in the processor's cache.
PIECE: Final = 1024

_LOADS: Final = orjson.loads
_Item = TypeVar("_Item")


def decode_lines(frames: Sequence[bytes], origin: Origin) -> Decoded | Columnar:
    """Decode frames of one JSON object each, as `json_lines.decode_lines` does."""
    if len(frames) >= FEW:
        try:
            return decode_pieces(objects_of(frames), origin)
        except ValueError:
            pass  # one that cannot be read: it costs no neighbour
    return decode_one_by_one(frames, origin)


def decode_body(body: bytes, origin: Origin) -> Decoded | Columnar:
    """Decode an array, lines, or a sequence of JSON objects, as `json_lines.decode_body` does."""
    objects = None if jsontext.has_nul(body) else values_of(body)
    if objects is not None and len(objects) >= FEW and set(map(type, objects)) == {dict}:
        try:
            return decode_objects(objects, origin)
        except ValueError:
            pass
    return decode_body_one_by_one(body, origin)


def objects_of(frames: Sequence[bytes]) -> Iterator[list[dict[str, Any]]]:
    """Read frames of one JSON object each, some at a time. Raises ValueError for what is for the lenient reader."""
    if jsontext.has_nul(b"".join(frames)):
        raise ValueError("for the lenient reader")
    for some in in_pieces(frames):
        objects = list(map(_LOADS, some))
        if set(map(type, objects)) != {dict}:
            raise ValueError("for the lenient reader")
        yield objects


def in_pieces(many: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """Give some at a time."""
    for at in range(0, len(many), PIECE):
        yield many[at : at + PIECE]


def decode_objects(objects: list[dict[str, Any]], origin: Origin) -> Decoded | Columnar:
    """Turn objects into records, as `decode_pieces` does."""
    return decode_pieces(in_pieces(objects), origin)


def decode_pieces(pieces: Iterable[Sequence[dict[str, Any]]], origin: Origin) -> Decoded | Columnar:
    """Turn objects into records as `mapping.from_object` does, in columns when all are plain. Takes them over.

    Their values are as `jsontext.loads` gives them. Raises ValueError for some that only the reference takes, and what
    the pieces raise; the objects are of no use then.
    """
    gathered, count = Gathered((), origin), 0
    odd, places = list[dict[str, Any]](), list[int]()
    for objects in pieces:
        if not gathered.count:
            gathered = Gathered(shape_of(objects[0], TREE), origin)
        if not gathered.add(objects):
            odd += objects
            places += range(count, count + len(objects))
        count += len(objects)
    if not odd:
        return Columnar(gathered.frame(), [])
    rest = _by_shape(odd, origin)
    if not gathered.count:
        return rest
    others = sorted(set(range(count)).difference(places))
    return _ordered([(gathered.frame(), others), (_frame(rest), places)])


def _by_shape(objects: list[dict[str, Any]], origin: Origin) -> Decoded | Columnar:
    """Decode those of one shape together, where they are many and plain, and the others one after the other."""
    places: dict[Shape, list[int]] = {}
    for place, obj in enumerate(objects):
        places.setdefault(shape_of(obj, TREE), []).append(place)
    frames, rest = list[tuple[pl.DataFrame, list[int]]](), list[int]()
    for shape, these in places.items():
        gathered = Gathered(shape, origin)
        if len(places) > 1 and len(these) >= FEW and gathered.add([objects[place] for place in these]):
            frames.append((gathered.frame(), these))
        else:
            rest += these
    rest.sort()
    records = [from_object(objects[place], origin) for place in rest]
    if not frames:
        return Decoded(records, [])
    return _ordered([*frames, (from_records(records), rest)])


def _ordered(parts: list[tuple[pl.DataFrame, list[int]]]) -> Columnar:
    """Put records together in the order of their places."""
    order = np.argsort([place for _, places in parts for place in places])
    return Columnar(pl.concat([frame for frame, _ in parts])[order], [])


def _frame(decoded: Decoded | Columnar) -> pl.DataFrame:
    return decoded.records if isinstance(decoded, Columnar) else from_records(decoded.records)
