"""Attributes, which are JSON text in a column: values by path, and all values.

A field is the key with this very name, dots and all; where there is none, the dots lead into nested objects. null is no
value. A field that holds a list or an object stands for all values in it, at any depth. A value is text as JSON has it:
numbers as they are written there, `true` and `false`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import orjson
import polars as pl

from logagg.query.syntax import Compare, Equal, Exists, Phrase, Regex, Substring
from logagg.query.text import escape, longest_run, number

#: JSON texts read at once: a call holds the interpreter's lock, for about 2 ms.
CHUNK = 2000
#: Bytes of JSON texts read at once, unless one alone has more: in Python they take ten times as much.
CHUNK_BYTES = 2 << 20

#: Characters for which JSON has an escape besides \\uXXXX.
_ESCAPED = frozenset('"\\/\b\f\n\r\t')
_NESTED = r"[\[{]"
#: 42 may be written 4.2e1.
_EXPONENT = r"[0-9]+(?:\.[0-9]+)?[eE]"


class Values(NamedTuple):
    """Values of some records; `owners[i]` is the place of the record of `texts[i]`."""

    texts: list[str]
    owners: list[int]


def candidates(node: Phrase | Substring | Regex | Equal | Compare | Exists, attributes: pl.Series) -> pl.Series:
    """Return the rows that may match by the bare JSON text, in order: no row that does match is left out."""
    there = attributes.is_not_null()
    rows, texts = there.arg_true(), attributes.filter(there)
    for pattern in _hints(node):
        hit = texts.str.contains(pattern)
        rows, texts = rows.filter(hit), texts.filter(hit)
    return rows


def _hints(node: Phrase | Substring | Regex | Equal | Compare | Exists) -> Iterator[str]:
    """Yield expressions for what stands in the JSON text of every match, but for escapes; the rarest first."""
    match node:
        case Phrase(_, words):
            yield _hint(longest_run(words), "", "(?i)")
        case Substring(_, parts):
            yield _hint(max(parts, key=len), "", "(?i)")
        case Equal(_, parts) if len(parts) > 1 or number(parts[0]) is None:
            yield _hint(max(parts, key=len), "")
    if node.field:
        yield _hint(node.field.name.rpartition(".")[2], _value_hint(node))


def _value_hint(node: Phrase | Substring | Regex | Equal | Compare | Exists) -> str:
    """Return how the JSON text goes on after the last name of the field."""
    match node:
        case Compare():
            return rf'"\s*:\s*(?:"?-?[0-9]|{_NESTED})'
        case Equal(_, (text,)) if isinstance(wanted := number(text), int):
            return rf'"\s*:\s*(?:"?-?(?:{abs(wanted)}(?:[^0-9]|$)|{_EXPONENT})|{_NESTED})'
        case Equal(_, (text,)) if number(text) is not None:
            return rf'"\s*:\s*(?:"?-?[0-9]|{_NESTED})'
    return '"'


def _hint(text: str, follows: str, flags: str = "") -> str:
    hidden = r"\\" if _ESCAPED & set(text) else r"\\u"
    return f"{flags}{escape(text)}{follows}|{hidden}"


def chunks(texts: pl.Series) -> Iterator[tuple[int, int]]:
    """Yield where to begin and how many to take, for all texts: as many as may be read at once."""
    if texts.str.len_bytes().sum() <= CHUNK_BYTES:
        yield from ((start, CHUNK) for start in range(0, len(texts), CHUNK))
        return
    sizes = texts.str.len_bytes().fill_null(0).to_list()
    start = held = 0
    for place, size in enumerate(sizes):
        if place > start and (held + size > CHUNK_BYTES or place - start == CHUNK):
            yield start, place - start
            start, held = place, 0
        held += size
    yield start, len(sizes) - start


def values(attributes: Sequence[str], name: str | None) -> Values:
    """Return the values of a field, or of all, from JSON texts."""
    found = Values([], [])
    for place, document in enumerate(parse(attributes)):
        value = document if name is None else at(document, name)
        if isinstance(value, str):
            found.texts.append(value)
            found.owners.append(place)
        elif value is not None and (texts := _leaves(value)):
            found.texts.extend(texts)
            found.owners.extend([place] * len(texts))
    return found


def field_texts(attributes: Sequence[str | None], name: str) -> list[str | None]:
    """Return for each JSON text the field as one text, lists and objects as JSON; None where it is not."""
    documents = iter(parse([text for text in attributes if text is not None]))
    return [None if text is None else _text(at(next(documents), name), text, name) for text in attributes]


def at(document: Any, name: str) -> Any:
    """Return the value of a field, None when there is none."""
    found = document.get(name)
    if found is None and "." in name:
        found = document
        for key in name.split("."):
            found = found.get(key) if isinstance(found, dict) else None
    return found


def parse(texts: Sequence[str]) -> Iterable[Any]:
    """Read JSON objects, their numbers as text."""
    try:
        return _loads(f"[{','.join(texts)}]")  # type: ignore[no-any-return]  # a list, as it begins with a bracket
    except (ValueError, RecursionError):
        return chain.from_iterable(map(_parse_one, texts))


def _loads(text: str) -> Any:
    return json.loads(text, parse_float=str, parse_int=str, parse_constant=str)


def _parse_one(text: str, reader: Callable[[str], Any] = _loads) -> list[Any]:
    """Read one JSON object; what no reader can take is one value, under no name."""
    for read in (reader, orjson.loads):  # orjson reads deeper than Python's stack
        try:
            document = read(text)
        except (ValueError, RecursionError):
            continue
        return [document if isinstance(document, dict) else {"": document}]
    return [{"": text}]


def _leaves(value: Any) -> list[str]:
    """Return all texts, numbers and booleans in a value, as text."""
    found: list[str] = []
    rest: list[Iterable[Any]] = [(value,)]
    while rest:
        for inner in rest.pop():
            if isinstance(inner, str):
                found.append(inner)
            elif isinstance(inner, dict):
                rest.append(inner.values())
            elif isinstance(inner, list):
                rest.append(inner)
            elif inner is not None:
                found.append(orjson.dumps(inner).decode())
    return found


def _text(value: Any, attributes: str, name: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    # Read again: what is no number in it must not become one, nor the other way round. Keys are sorted, for PostgreSQL
    # has them in an order of its own.
    (found,) = _parse_one(attributes, json.loads)
    return json.dumps(at(found, name), ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def to_series(texts: Sequence[str | None]) -> pl.Series:
    """Return texts as a column. Halves of surrogate pairs, which JSON can write and UTF-8 cannot, are replaced."""
    try:
        return pl.Series(texts, dtype=pl.String)
    except UnicodeEncodeError:
        return pl.Series([text and _clean(text) for text in texts], dtype=pl.String)


def _clean(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
