"""JSON bytes to values that can be stored, and back: orjson for what is right, a lenient reader for the rest.

A value from here holds no NUL, no surrogate and no number beyond a double, in keys either. An integer beyond 64 bits is
read by orjson as the nearest double.
"""

import json
import re
from decimal import Decimal
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from logagg.protocols.clean import clean_value

#: orjson takes this escape, PostgreSQL does not take the character.
NUL_ESCAPE = b"\\u0000"
_BLANKS = re.compile(r"[ \t\r\n]*")
#: An integer of so many digits is below 1.8e308, the largest double.
_DOUBLE_DIGITS = 308

#: The end of a number with an exponent, as orjson writes it. It may also be a part of a text.
_EXPONENT = re.compile(r"e[+-]?[0-9]+(?:[,\]}\n]|$)")
#: A zero with a sign, as orjson writes it. It may also be a part of a text.
_MINUS_ZERO = re.compile(r"-0(?:\.0)?(?:[,\]}\n]|$)")
_MINUS_ZERO_IN_BYTES = re.compile(_MINUS_ZERO.pattern.encode())
#: Which bytes begin an exponent, and which follow a number; and so many of these that no exponent is behind them.
_SIGN, _BEHIND = (np.isin(np.arange(256), [*some]) for some in (b"+-", b",]}\n"))
_END: Final = b"\n" * 5
#: Fewer bytes than this are searched one after the other; more of them by arithmetic, in a quarter of the time.
_FEW_BYTES: Final = 16_384
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)|-0(?:\.0)?(?![0-9.])')

#: Types whose values are never such numbers. To look at the types costs less than to search the text.
_WITHOUT_ODD = frozenset({str, int, bool, type(None)})

_NAMES = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}


class Loaded(NamedTuple):
    """A JSON value, and whether something in it had to be replaced."""

    value: Any
    replaced: bool


def loads(data: bytes) -> Loaded:
    """Read one JSON value. Raises ValueError, with the place, for what is none even to a lenient eye."""
    if NUL_ESCAPE not in data:
        try:
            return Loaded(orjson.loads(data), False)
        except orjson.JSONDecodeError:
            pass  # the lenient reader has the last word
    text = to_lenient(data)
    value, end, replaced = LenientReader().read(text, 0)
    if text[end:].strip():
        raise ValueError(f"invalid JSON: more text after the value: char {end} of {len(text)}")
    return Loaded(value, replaced)


def dumps(value: object) -> str:
    """Write a value of `loads` as JSON, numbers as jsonb writes them: without exponents, and zero without a sign.

    Raises ValueError when it is nested too deeply.
    """
    try:
        text = orjson.dumps(value).decode()
    except TypeError:  # more than 254 levels, or an integer beyond 64 bits
        text = _dumps(value)
    if type(value) is dict and _WITHOUT_ODD.issuperset(map(type, value.values())):
        return text
    return plain_numbers(text)


def plain_numbers(text: str) -> str:
    """Write the numbers in JSON of orjson as `dumps` does."""
    return _TOKENS.sub(_plain, text) if odd_numbers(text) else text


def odd_numbers(text: str) -> bool:
    """Tell whether JSON of orjson may have numbers that `dumps` writes in another way; texts a line apart."""
    return ("-0" in text and _MINUS_ZERO.search(text) is not None) or _EXPONENT.search(text) is not None


def odd_numbers_within(texts: bytes) -> bool:
    """Tell of JSON of orjson, many texts a line apart, what `odd_numbers` does."""
    if len(texts) <= _FEW_BYTES:
        return odd_numbers(texts.decode())
    found = np.frombuffer(texts + _END, dtype=np.uint8)
    digits = found - np.uint8(ord("0")) < 10  # what is below 0 is far above 9, unsigned
    places = np.flatnonzero(digits[:-1] & (found[1:] == ord("e"))) + 2
    places += _SIGN[found[places]]
    for _ in range(len("308")):
        places += digits[places]
    if (digits[places - 1] & _BEHIND[found[places]]).any():
        return True
    return b"-0" in texts and _MINUS_ZERO_IN_BYTES.search(texts) is not None


def has_nul(data: bytes) -> bool:
    """Tell whether JSON may have a NUL in a text."""
    if len(data) > _FEW_BYTES:
        found = np.frombuffer(data, dtype=np.uint8)
        if not ((found[:-1] == ord("\\")) & (found[1:] == ord("u"))).any():
            return False
    return NUL_ESCAPE in data


def _dumps(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def _plain(token: re.Match[str]) -> str:
    text = token[0]
    return text if text[0] == '"' else f"{abs(number) if (number := Decimal(text)) == 0 else number:f}"


def name_of(value: object) -> str:
    """Say what JSON calls it: object, array, string, number, boolean or null."""
    return _NAMES.get(type(value), "null")


def to_lenient(data: bytes) -> str:
    """Text for a `LenientReader`: bytes that are no UTF-8 become surrogates, which it replaces."""
    return data.decode(errors="surrogateescape").removeprefix("\ufeff")


def to_bytes(text: str) -> bytes:
    """Give the bytes back from which `to_lenient` made the text."""
    return text.encode(errors="surrogateescape")


class LenientReader:
    """Reads what orjson refuses: bad UTF-8, NUL, lone surrogates, control characters, NaN, infinities, 1e400."""

    def __init__(self) -> None:
        self._renamed = 0
        self._decoder = json.JSONDecoder(
            strict=False, parse_float=self._float, parse_int=self._integer, parse_constant=self._as_text
        )

    def read(self, text: str, start: int) -> tuple[Any, int, bool]:
        """Read the value at `start` or behind blanks; give it, its end, and whether something was replaced.

        Raises ValueError, with the place.
        """
        self._renamed = 0
        try:
            value, end = self._decoder.raw_decode(text, _behind_blanks(text, start))
            cleaned = clean_value(value)
            return cleaned, end, bool(self._renamed) or cleaned != value
        except json.JSONDecodeError as error:
            raise ValueError(f"invalid JSON: {error}") from None
        except RecursionError:
            raise ValueError(f"JSON nested too deeply, in {len(text) - start} characters") from None

    def _float(self, text: str) -> float | str:
        number = float(text)
        return number if abs(number) != float("inf") else self._as_text(text)

    def _integer(self, text: str) -> int | str:
        return int(text) if len(text) <= _DOUBLE_DIGITS else self._as_text(text)

    def _as_text(self, text: str) -> str:
        self._renamed += 1
        return text


def _behind_blanks(text: str, start: int) -> int:
    blanks = _BLANKS.match(text, start)
    return blanks.end() if blanks else start
