r"""Attributes, which are JSON objects as text, as texts that have the words of their values, and some more.

A word of the bare text is a word of a value or of a key, but for two things. An escape ends a word (`\n`) or is a
part of it (`\u00e9`). And a query compares numbers by value: `2e2` is found as 200, so 200 must be a word, too.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson
import polars as pl

#: An escape but for `\u`: its letter is part of no word. Backslashes are read in pairs: in `\\n` the n is a letter.
_PLAIN_ESCAPE = r"\\[^u]"
#: Texts that are worth a look of Python: with an escaped character; with a number that has an exponent; with one that
#: is so large, or so near to the next integer, that it is another integer as a double.
_STRANGE = r'\\u|["\[,:\s]-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?[eE][+-]?[0-9]+["\],}\s]|\.9{5}|[0-9]{11}\.9|[0-9]{16}\.'
#: And what is nested so deep that not every reader gets to the bottom.
_NESTED, _DEEP = r"[\[{]", 200
#: Worth to be counted in.
_LONG = 1000
#: JSON, RFC 8259 section 6: a number that is not written as an integer. To a query, longer ones are text.
_FRACTION = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)")
_LONGEST_NUMBER = 400


def texts(attributes: pl.Series) -> Iterator[pl.Series]:
    """Yield texts that have, as words, at least all that a query can find in the values."""
    attributes = attributes.drop_nulls()
    escaped = attributes.str.contains("\\", literal=True)
    some = attributes.filter(escaped)
    for part, bare in ((attributes.filter(~escaped),) * 2, (some, some.str.replace_all(_PLAIN_ESCAPE, " "))):
        yield bare
        long = bare.str.len_bytes() > _LONG
        deep = part.filter(long).filter(bare.filter(long).str.count_matches(_NESTED) > _DEEP)
        for strange in (part.filter(bare.str.contains(_STRANGE)), deep):
            yield pl.Series(list(map(_looked_into, strange)), dtype=pl.String)


def _looked_into(document: str) -> str:
    """Return the values as readers of JSON find them, the integer parts of numbers, and the text itself."""
    found = [document]
    for read in (_loads, orjson.loads):  # which of the two succeeds depends on the stack that is left
        try:
            values = list(_values(read(document)))
        except (ValueError, RecursionError):
            continue
        found += values
        found += [str(abs(int(value))) for text in values if (value := _fraction(text)) is not None]
    return "\n".join(found).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _loads(document: str) -> Any:
    return json.loads(document, parse_float=str, parse_int=str, parse_constant=str)


def _values(document: Any) -> Iterator[str]:
    rest: list[Any] = [document]
    while rest:
        value = rest.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            rest += value.values() if isinstance(value, dict) else value
        elif value is not None:
            yield orjson.dumps(value).decode()


def _fraction(text: str) -> float | None:
    """Return the finite number that a text is in JSON's notation, when it is not written as an integer."""
    if len(text) > _LONGEST_NUMBER or not _FRACTION.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
