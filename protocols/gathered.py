"""Columns of JSON objects of one sender, gathered piece by piece, where all have their fields in the same places.

What is not plain is left to `mapping`, which is the reference. `json_columns` decides which way objects go.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
import polars as pl

from logagg.protocols import jsontext
from logagg.protocols.columns import COLUMNS, TIME, constant, times
from logagg.protocols.levels import DEFAULT_SEVERITY, SEVERITY_OF_NAME
from logagg.protocols.mapping import drop_empty
from logagg.protocols.names import FIELDS, HOLDERS, OPENED, TREE, Shape, Tree, Try, others, tries
from logagg.protocols.record import Origin
from logagg.protocols.stamps import Integers, microseconds
from logagg.protocols.values import line, text

_DUMPS: Final = orjson.dumps
_NAMES: Final = tuple(FIELDS)
#: Digits of epoch numbers tell the unit, see `times.from_epoch`: above which, up to which, microseconds in one.
_UNITS: Final = ((0, 10**11, 1_000_000), (10**11, 10**14, 1_000), (10**14, 10**17, 1))
#: Doubles below this are exact to the last microsecond, and rounded as `times.from_epoch` rounds them.
_EXACT: Final = 2**53
_TEXT: Final = frozenset({str})
_TEXT_OR_NONE: Final = frozenset({str, type(None)})


class _Odd(Exception):
    """Not all objects are plain: they are for the reference."""


#: What a value that is not plain brings about.
_ODD = (_Odd, ValueError, TypeError, KeyError, IndexError, OverflowError)


class _Plan(NamedTuple):
    """Where objects of some shape have their fields."""

    #: The best name of each field, by the field.
    best: dict[str, Try]
    #: Keys that none may have besides.
    forbidden: frozenset[str]
    #: Keys that are no name: some may have them, if they hold no object, or one without a name within.
    empty: frozenset[str]
    #: Keys at the top that all have.
    size: int
    #: Keys of objects with names within, and what is looked for in each.
    nested: tuple[tuple[str, Shape], ...]
    #: Keys that would be looked into if they held an object.
    flat: tuple[str, ...]
    #: All have the same shape, this one: what names mean depends on the other names.
    same: bool
    shape: Shape


class Gathered:
    """Columns of objects of a shape."""

    def __init__(self, shape: Shape, origin: Origin) -> None:
        self._plan = _plan(shape)
        self._origin = origin
        self._values: dict[str, list[Any]] = {field: [] for field in self._plan.best}
        #: As orjson writes it, None for nothing.
        self._attributes: list[bytes | None] = []

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._attributes)

    def add(self, objects: Sequence[dict[str, Any]]) -> bool:
        """Take objects over; or leave them as they are, and return False, unless all are plain and of the shape.

        Their values are as `jsontext.loads` gives them.
        """
        try:
            if "message" not in self._values or not OPENED.isdisjoint(objects[0]):
                return False
            _check(objects, self._plan)
            made = {field: self._made(field, objects) for field in self._plan.best}
        except _ODD:
            return False
        for field, gathered in self._values.items():
            gathered += made[field]
        self._attributes += _attributes(objects, self._plan)
        return True

    def frame(self) -> pl.DataFrame:
        """Return the records. Raises ValueError for a time that is none."""
        columns = constant(self._origin.environment, self._origin.peer, self._origin.now, self.count)
        for field, values in self._values.items():
            if field == "timestamp":
                columns[field] = _times(values, self._plan.best[field].convert)
            else:
                column = "severity" if field == "level" else field
                columns[column] = pl.Series(values, dtype=COLUMNS[column])
        if "timestamp" not in columns:
            columns["timestamp"] = columns["received_at"]
        if "severity" not in columns:
            columns["severity"] = pl.Series([DEFAULT_SEVERITY], dtype=pl.Int8).new_from_index(0, self.count)
        columns["attributes"] = _written(self._attributes)
        return pl.DataFrame([columns[name].alias(name) for name in COLUMNS])

    def _made(self, field: str, objects: Sequence[dict[str, Any]]) -> Any:
        """Return the values of a field; raises one of `_ODD` for what is not plain."""
        best = self._plan.best[field]
        values = _values(objects, best)
        if field == "timestamp":
            if best.convert(values[0]) is None:
                raise _Odd
            return values
        if field == "level":
            return _levels(values, best.convert)
        if field == "message":
            made = list(map(line, values)) if best.convert is line else values
            if set(map(type, made)) != _TEXT:
                raise _Odd
            return made
        return self._others(field, values, objects)

    def _others(self, field: str, values: list[Any], objects: Sequence[dict[str, Any]]) -> list[Any]:
        """Return the values of a field that may have none."""
        best, made = self._plan.best[field], values
        if best.convert is not text:
            made = list(map(best.convert, values))
        elif "" in values:
            made = [value or None for value in values]
        kinds = set(map(type, made))
        if COLUMNS[field] == pl.String and not kinds <= _TEXT_OR_NONE:
            raise _Odd
        if type(None) not in kinds:
            return made
        if [value for new, value in zip(made, values, strict=True) if new is None and value not in (None, "")]:
            raise _Odd
        rest = frozenset((name, _rank(name, each)) for name, each in self._plan.best.items() if name != field)
        if best.outer or not all(map(others(rest).difference([best.key]).isdisjoint, objects)):
            raise _Odd
        default = {"environment": self._origin.environment, "source": self._origin.peer}.get(field)
        return [default if value is None else value for value in made]


@lru_cache(maxsize=256)
def _plan(shape: Shape) -> _Plan:
    best: dict[str, Try] = {}
    for each in tries(shape):
        best.setdefault(_NAMES[each.field], each)
    keys = {part if isinstance(part, str) else part[0] for part in shape}
    nested = [part for part in shape if not isinstance(part, str)]
    empty = {key for key, inner in nested if not inner and key in HOLDERS}
    used = {each.outer[0] if each.outer else each.key for each in best.values()}
    more = others(frozenset((field, _rank(field, each)) for field, each in best.items())).difference(keys - OPENED)
    return _Plan(
        best,
        more - HOLDERS,
        (more & HOLDERS) | empty,
        len(used),
        tuple(part for part in nested if part[0] not in empty),
        tuple(part for part in shape if isinstance(part, str) and TREE[part] and part not in used),
        not all(each.sure for each in best.values()),
        shape,
    )


def _rank(field: str, each: Try) -> int:
    return FIELDS[field].index(".".join((*each.outer, each.key))) if each.sure else len(FIELDS[field])


def _check(objects: Sequence[dict[str, Any]], plan: _Plan) -> None:
    """Raise `_Odd` unless the best name of each field is the same in all objects."""
    more = [obj for obj in objects if len(obj) > plan.size]
    keys = set[str]().union(*more)
    if not plan.forbidden.isdisjoint(keys):
        raise _Odd
    for key in plan.empty & keys:
        inner = [value for obj in more if type(value := obj.get(key)) is dict]
        if not all(map(frozenset(TREE[key]).isdisjoint, inner)):
            raise _Odd
    if plan.same:
        _check_alike(objects, plan.shape, TREE)
        return
    for key, shape in plan.nested:
        _check_alike([obj[key] for obj in objects], shape, TREE[key])
    for key in plan.flat:
        if dict in set(map(type, [obj.get(key) for obj in objects])):
            raise _Odd


def _check_alike(objects: Sequence[Any], shape: Shape, tree: Tree) -> None:
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


def _values(objects: Sequence[dict[str, Any]], each: Try) -> list[Any]:
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
        raise ValueError("a time that is none")
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


def _levels(values: list[Any], convert: Callable[[Any], Any]) -> list[int]:
    try:
        return [SEVERITY_OF_NAME[value] for value in values]
    except KeyError:
        if len(set(map(type, values))) > 1:  # 1 and True are the same key
            raise _Odd from None
        severity_of = {value: convert(value) for value in set(values)}
        if None in severity_of.values():
            raise _Odd from None
        return [severity_of[value] for value in values]


def _attributes(objects: Sequence[dict[str, Any]], plan: _Plan) -> list[bytes | None]:
    """Return what is left of the objects without the fields as JSON, None for nothing. Takes the objects over."""
    used = [each for each in plan.best.values() if not each.keep]
    flat = [each.key for each in used if not each.outer]
    if len(flat) == plan.size:  # most often nothing is left
        objects = [obj if len(obj) > plan.size else {} for obj in objects]
    names = flat + [each.outer[0] for each in used if each.outer and _delete(objects, each)]
    for obj in filter(None, objects):
        for name in names:
            del obj[name]
    try:
        return [_DUMPS(obj) if obj else None for obj in objects]
    except TypeError:
        return [jsontext.dumps(obj).encode() if obj else None for obj in objects]


def _written(texts: list[bytes | None]) -> pl.Series:
    """Return JSON of orjson as `jsontext.dumps` writes it."""
    if jsontext.odd_numbers_within(b"\n".join(filter(None, texts))):
        texts = [text and jsontext.plain_numbers(text.decode()).encode() for text in texts]
    return pl.Series(texts, dtype=pl.Binary).cast(pl.String)  # half the cost of texts made first


def _delete(objects: Sequence[dict[str, Any]], each: Try) -> bool:
    """Delete what is nested, and the objects that are empty without it; or return True, if all at the top are."""
    *outer, last = each.outer
    holders = objects
    for name in outer:
        holders = [holder[name] for holder in holders]
    inner = [holder[last] for holder in holders]
    if not outer and set(map(len, inner)) == {1}:
        return True
    for each_inner, obj, holder in zip(inner, objects, holders, strict=True):
        del each_inner[each.key]
        if not each_inner:
            if outer:
                drop_empty(obj, each.outer)
            else:
                del holder[last]
    return False
