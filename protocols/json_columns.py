"""Many JSON objects to columns at once, a third of the cost of one record after the other.

It takes objects of one sender: the same names or a few sets of them, values as most are. All else `json_lines` takes,
which is the reference: where this module answers, both give the same records, and a test holds them to it.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
import polars as pl

from logagg.protocols import jsontext
from logagg.protocols.columns import COLUMNS, TIME, Columnar, constant, from_records, times
from logagg.protocols.json_lines import decode_body as decode_body_one_by_one
from logagg.protocols.json_lines import decode_lines as decode_one_by_one
from logagg.protocols.json_lines import values_of
from logagg.protocols.levels import DEFAULT_SEVERITY, SEVERITY_OF_NAME
from logagg.protocols.mapping import drop_empty, from_object
from logagg.protocols.names import FIELDS, HOLDERS, OPENED, TREE, Shape, Tree, Try, others, shape_of, tries
from logagg.protocols.record import Decoded, Origin
from logagg.protocols.stamps import Integers, microseconds
from logagg.protocols.values import line, text

#: Fewer frames than this are not worth a polars frame.
FEW: Final = 64

_LOADS, _DUMPS = orjson.loads, orjson.dumps
#: PostgreSQL does not take this character; JSON can write it.
_NUL, _NUL_ESCAPE = "\0", jsontext.NUL_ESCAPE
_NAMES = tuple(FIELDS)
#: Digits of epoch numbers tell the unit, see `times.from_epoch`: above which, up to which, microseconds in one.
_UNITS: Final = ((0, 10**11, 1_000_000), (10**11, 10**14, 1_000), (10**14, 10**17, 1))
#: Doubles below this are exact to the last microsecond, and rounded as `times.from_epoch` rounds them.
_EXACT: Final = 2**53


class _Odd(Exception):
    """Not all objects are plain: they are for the reference."""


#: What a value that is not plain brings about.
_ODD = (_Odd, ValueError, TypeError, KeyError, IndexError, OverflowError)


class _Plan(NamedTuple):
    """Where objects of some shape have their fields."""

    #: The best name of each field, by the field.
    best: dict[str, Try]
    #: Keys that none may have besides.
    others: frozenset[str]
    #: Keys at the top that all have.
    size: int
    #: Keys of objects with names within, and what is looked for in each.
    nested: tuple[tuple[str, Shape], ...]
    #: Keys that are no name and hold objects without one: some may have them, others not.
    empty: tuple[str, ...]
    #: Keys that would be looked into if they held an object.
    flat: tuple[str, ...]
    #: All have the same shape, this one: what names mean depends on the other names.
    same: bool
    shape: Shape


def decode_lines(frames: Sequence[bytes], origin: Origin) -> Decoded | Columnar:
    """Decode frames of one JSON object each, as `json_lines.decode_lines` does."""
    if len(frames) >= FEW and _NUL_ESCAPE not in b"".join(frames):
        try:
            objects = list(map(_LOADS, frames))
            if set(map(type, objects)) == {dict}:
                return decode_objects(objects, origin)
        except ValueError:
            pass
    return decode_one_by_one(frames, origin)


def decode_body(body: bytes, origin: Origin) -> Decoded | Columnar:
    """Decode an array, lines, or a sequence of JSON objects, as `json_lines.decode_body` does."""
    objects = values_of(body) if _NUL_ESCAPE not in body else None
    if objects is not None and len(objects) >= FEW and set(map(type, objects)) == {dict}:
        try:
            return decode_objects(objects, origin)
        except ValueError:
            pass
    return decode_body_one_by_one(body, origin)


def decode_objects(objects: list[dict[str, Any]], origin: Origin) -> Decoded | Columnar:
    """Turn objects into records as `mapping.from_object` does, in columns when all are plain. Takes them over.

    Their values are as `jsontext.loads` gives them. Raises ValueError for one that is nested too deeply to be written;
    the objects are of no use then.
    """
    plan = _plan(shape_of(objects[0], TREE))
    try:
        _check(objects, plan)
        columns = _columns(objects, origin, plan)
    except _ODD:
        return _by_shape(objects, origin)
    return Columnar(_frame(objects, columns, plan), [])


def _by_shape(objects: list[dict[str, Any]], origin: Origin) -> Decoded | Columnar:
    """Decode those of one shape together, where they are many and plain, and the others one after the other."""
    places: dict[Shape, list[int]] = {}
    for place, obj in enumerate(objects):
        places.setdefault(shape_of(obj, TREE), []).append(place)
    groups, order = list[tuple[list[dict[str, Any]], dict[str, pl.Series], _Plan]](), list[int]()
    for shape, these in places.items() if len(places) > 1 else ():
        if len(these) >= FEW:
            some, plan = [objects[place] for place in these], _plan(shape)
            try:
                groups.append((some, _columns(some, origin, plan), plan))
            except _ODD:
                continue
            order += these
    if not groups:
        return Decoded([from_object(obj, origin) for obj in objects], [])
    frames = [_frame(*group) for group in groups]
    if rest := sorted(set(range(len(objects))).difference(order)):
        frames.append(from_records([from_object(objects[place], origin) for place in rest]))
    return Columnar(pl.concat(frames)[np.argsort(order + rest)], [])


def _frame(objects: list[dict[str, Any]], columns: dict[str, pl.Series], plan: _Plan) -> pl.DataFrame:
    """Add the attributes to the other columns. Takes the objects over."""
    columns["attributes"] = _attributes(objects, list(plan.best.values()), plan.size)
    return pl.DataFrame([columns[name].alias(name) for name in COLUMNS])


@lru_cache(maxsize=256)
def _plan(shape: Shape) -> _Plan:
    best: dict[str, Try] = {}
    for each in tries(shape):
        best.setdefault(_NAMES[each.field], each)
    keys = [part if isinstance(part, str) else part[0] for part in shape]
    nested = [part for part in shape if not isinstance(part, str)]
    empty = tuple(key for key, inner in nested if not inner and key in HOLDERS)
    used = {each.outer[0] if each.outer else each.key for each in best.values()}
    return _Plan(
        best,
        others(frozenset((field, _rank(field, each)) for field, each in best.items())).difference(set(keys) - OPENED),
        len(used),
        tuple(part for part in nested if part[0] not in empty),
        empty,
        tuple(part for part in shape if isinstance(part, str) and TREE[part] and part not in used),
        not all(each.sure for each in best.values()),
        shape,
    )


def _rank(field: str, each: Try) -> int:
    return FIELDS[field].index(".".join((*each.outer, each.key))) if each.sure else len(FIELDS[field])


def _columns(objects: list[dict[str, Any]], origin: Origin, plan: _Plan) -> dict[str, pl.Series]:
    """Make all columns but the attributes; raises one of `_ODD` for what is not plain. Leaves the objects as they are.

    The best name of each field is the same in all, see `_check`. Nothing here but making columns of lists: any other
    call of polars costs as much as a hundred records.
    """
    if not OPENED.isdisjoint(objects[0]):
        raise _Odd
    made = {field: _values(objects, each) for field, each in plan.best.items()}
    columns = constant(origin.environment, origin.peer, origin.now, len(objects))
    for field, values in made.items():
        convert = plan.best[field].convert
        if field == "timestamp":
            columns[field] = _times(values, convert)
        elif field == "level":
            columns["severity"] = _levels(values, convert)
        elif field == "message":
            columns[field] = _texts(list(map(line, values)) if convert is line else values)
        else:
            columns[field] = _others_of(field, values, convert, objects, plan, origin)
    if columns["message"].null_count():
        raise _Odd
    if "timestamp" not in made:
        columns["timestamp"] = columns["received_at"]
    if "level" not in made:
        columns["severity"] = pl.Series([DEFAULT_SEVERITY], dtype=pl.Int8).new_from_index(0, len(objects))
    return columns


def _check(objects: list[dict[str, Any]], plan: _Plan) -> None:
    """Raise `_Odd` unless the best name of each field is the same in all objects."""
    free, size = plan.others.isdisjoint, plan.size
    for obj in objects:
        if len(obj) > size and not free(obj) and not _nothing_within(obj, plan.others):
            raise _Odd
    if plan.same:
        _check_alike(objects, plan.shape, TREE)
        return
    for key, shape in plan.nested:
        _check_alike([obj[key] for obj in objects], shape, TREE[key])
    for key in plan.flat:
        if dict in set(map(type, [obj.get(key) for obj in objects])):
            raise _Odd
    for key in plan.empty:
        free = TREE[key].keys().isdisjoint
        if not all(free(inner) for obj in objects if type(inner := obj.get(key)) is dict):
            raise _Odd


def _nothing_within(obj: dict[str, Any], others: frozenset[str]) -> bool:
    """Tell whether all of these keys that an object has mean nothing by themselves, and hold nothing that does."""
    return all(
        key in HOLDERS and (type(inner := obj[key]) is not dict or TREE[key].keys().isdisjoint(inner))
        for key in others.intersection(obj)
    )


def _check_alike(objects: list[Any], shape: Shape, tree: Tree) -> None:
    """Raise `_Odd` or KeyError unless all objects have this shape, in any order."""
    if set(map(type, objects)) != {dict}:
        raise _Odd
    nested = {part[0]: part[1] for part in shape if not isinstance(part, str)}
    flat = [part for part in shape if isinstance(part, str)]
    if not all(map(frozenset(tree.keys() - {*nested, *flat}).isdisjoint, objects)):
        raise _Odd
    for key in flat:
        if dict in set(map(type, [obj[key] for obj in objects])):
            raise _Odd
    for key, inner in nested.items():
        _check_alike([obj[key] for obj in objects], inner, tree[key])


def _values(objects: list[dict[str, Any]], each: Try) -> list[Any]:
    for name in each.outer:
        objects = [obj[name] for obj in objects]
    key = each.key
    return [obj[key] for obj in objects]


def _times(values: list[Any], convert: Callable[[Any], Any]) -> pl.Series:
    kinds = set(map(type, values))
    since = microseconds(values) if kinds == {str} else _epochs(values) if kinds <= {int, float} else None
    if since is not None:
        return pl.Series(since).cast(TIME)
    read = list(map(convert, values))
    if None in read:
        raise _Odd
    return times(read)


def _epochs(values: list[float]) -> Integers | None:
    """Return microseconds of epoch numbers of one unit as `times.from_epoch` does; None for what needs more care."""
    numbers = np.array(values)
    least, most = numbers.min(), numbers.max()
    for low, high, factor in _UNITS:
        if low <= least and most < high and (numbers.dtype == np.int64 or most * factor < _EXACT):
            since: Integers = np.rint(numbers * factor).astype(np.int64)
            return since
    return None


def _levels(values: list[Any], convert: Callable[[Any], Any]) -> pl.Series:
    try:
        found = [SEVERITY_OF_NAME[value] for value in values]
    except KeyError:
        if len(set(map(type, values))) > 1:  # 1 and True are the same key
            raise _Odd from None
        severity_of = {value: convert(value) for value in set(values)}
        found = [severity_of[value] for value in values]
        if None in severity_of.values():
            raise _Odd from None
    return pl.Series(found, dtype=pl.Int8)


def _others_of(
    field: str, values: list[Any], convert: Callable[[Any], Any], objects: list[Any], plan: _Plan, origin: Origin
) -> pl.Series:
    """Return the column of a field that may have no value."""
    made = [value or None for value in values] if convert is text else list(map(convert, values))
    if None in made:
        if [value for new, value in zip(made, values, strict=True) if new is None and value not in (None, "")]:
            raise _Odd
        rest = {(name, _rank(name, each)) for name, each in plan.best.items() if name != field}
        keys = others(frozenset(rest)).difference([plan.best[field].key])
        if plan.best[field].outer or not all(map(keys.isdisjoint, objects)):
            raise _Odd
        default = {"environment": origin.environment, "source": origin.peer}.get(field)
        made = [default if value is None else value for value in made]
    return pl.Series(made, dtype=COLUMNS[field])


def _texts(values: list[str | None]) -> pl.Series:
    return pl.Series(values, dtype=pl.String)


def _attributes(objects: list[dict[str, Any]], used: list[Try], size: int) -> pl.Series:
    """Return what is left of the objects without these, null for nothing. Takes the objects over."""
    flat = [each.key for each in used if not each.outer and not each.keep]
    if len(flat) == size:
        left = [_without(obj, flat) if len(obj) > size else None for obj in objects]
    else:
        for each in used:
            if each.outer:
                _delete(objects, each)
        for name in flat:
            for obj in objects:
                del obj[name]
        left = [obj or None for obj in objects]
    try:
        texts = [None if obj is None else _DUMPS(obj).decode() for obj in left]
    except TypeError:
        return _texts([None if obj is None else jsontext.dumps(obj) for obj in left])
    if jsontext.odd_numbers("\n".join(filter(None, texts))):
        texts = [text and jsontext.plain_numbers(text) for text in texts]
    return _texts(texts)


def _without(obj: dict[str, Any], names: list[str]) -> dict[str, Any]:
    for name in names:
        del obj[name]
    return obj


def _delete(objects: list[dict[str, Any]], each: Try) -> None:
    """Delete what is nested, and the objects that are empty without it."""
    *outer, last = each.outer
    holders = objects
    for name in outer:
        holders = [holder[name] for holder in holders]
    for obj, holder in zip(objects, holders, strict=True):
        inner = holder[last]
        if not each.keep:
            del inner[each.key]
        if not inner:
            if outer:
                drop_empty(obj, each.outer)
            else:
                del obj[last]
