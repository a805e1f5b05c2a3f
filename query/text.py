r"""What a word is, and how words, phrases and patterns become regular expressions of the one engine that runs them.

A word is a maximal run of Unicode letters, digits (`\p{L}`, `\p{N}`) and underscores. Case is folded by Unicode's
simple case folding. The engine is Rust's `regex`, as polars runs it: its time is linear in the text, so no pattern can
hang. Characters of the query that this Python's Unicode does not know are left to the engine's.
"""

import math
import os
import re
import unicodedata
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import polars as pl

from logagg.protocols.times import to_datetime
from logagg.query.errors import QueryError
from logagg.query.syntax import Equal, Phrase, Regex, Substring


class _Letters(NamedTuple):
    """What words are made of, what stands between them, and how they begin and end."""

    word: str
    no_word: str
    start: str
    end: str


_NO_WORD = r"[^\p{L}\p{N}_]"
_UNICODE = _Letters(r"[\p{L}\p{N}_]", _NO_WORD, f"(?:^|{_NO_WORD})", f"(?:$|{_NO_WORD})")
_ASCII = _Letters("[0-9A-Za-z_]", r"[\x00-/:-@\[-^`{-\x7f]", r"(?-u:\b)", r"(?-u:\b)")
_WORDS = r"[\p{L}\p{N}_*]+"
_WORDS_HERE = re.compile(r"[\w*]+")
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$#&~-]")

#: Words and stars in one phrase: each is a Unicode class, some 40 KB of compiled expression.
MAX_WORDS = 100
#: Stars in one substring or value.
MAX_STARS = 100
MAX_REGEX = 4096
#: Bytes of a compiled expression. The engine keeps the last 32 of each thread, with up to twice their size about them:
#: 320 MB a thread with its own limit of 10 MB. It reads this once a thread, before the first expression.
os.environ["POLARS_REGEX_SIZE_LIMIT"] = "5000000"
#: A user's expression must stay within the limit even when it is repeated so many times: the worst cost of one byte of
#: text grows with the size, 45 us at 2.5 MB.
_INFLATE = 2
#: JSON, RFC 8259 section 6; the group is there when it is not an integer.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)((?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
#: Longer ones are text.
_MAX_DIGITS = 400
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_REASON = re.compile(r"\nerror: ([^\n]+)")
_PLACE = re.compile(r"regex parse error:\n {4}[^\n]*\n {4}( *)\^")


class Patterns(NamedTuple):
    """Regular expressions for one node: a text that fails the cheap `first` need not be tried with `exact`.

    For a text of ASCII alone `ascii` is the same as `exact`, and several times as fast.
    """

    first: str | None
    exact: str
    ascii: str | None = None


def words_of(text: str) -> tuple[str, ...]:
    """Split into words; `*` counts as a part of them."""
    if all(unicodedata.category(c) != "Cn" for c in text):  # both know these characters, and agree
        return tuple(_WORDS_HERE.findall(text))
    words: list[str] = pl.Series([text]).str.extract_all(_WORDS).to_list()[0]
    return tuple(words)


def patterns_of(node: Phrase | Substring | Regex | Equal) -> Patterns:
    """Return the regular expressions of a node that looks into text."""
    match node:
        case Phrase(_, words):
            return Patterns(f"(?i){longest_run(words)}", _phrase(words, _UNICODE), _phrase(words, _ASCII))
        case Substring(_, parts):
            return Patterns(None, "(?is)" + ".*".join(map(escape, parts)))
        case Equal(_, parts):
            return Patterns(None, f"(?s)^{'.*'.join(map(escape, parts))}$")
        case Regex(_, pattern):
            return Patterns(None, pattern)


def longest_run(words: tuple[str, ...]) -> str:
    """Return the longest text that stands in every match of a phrase, but for case."""
    return max(" ".join(words).replace("*", " ").split(), key=len)


def _phrase(words: tuple[str, ...], letters: _Letters) -> str:
    start = "" if words[0].startswith("*") else letters.start
    end = "" if words[-1].endswith("*") else letters.end
    # Where no boundary is asked for, a star at the edge asks for nothing; a word of stars asks for one letter.
    return f"(?i){start}{f'{letters.no_word}+'.join(_word(word, letters.word) for word in words)}{end}"


def _word(word: str, letter: str) -> str:
    return f"{letter}+" if not word.strip("*") else re.sub(r"\*+", lambda _: f"{letter}*", word)


def escape(text: str) -> str:
    """Return an expression that matches this text only."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def check_regex(pattern: str, query: str, position: int) -> None:
    """Raise QueryError when the engine does not take the pattern, which stands at `position` of the query."""
    if len(pattern) > MAX_REGEX:
        raise QueryError(f"regular expression of {len(pattern)} characters, at most {MAX_REGEX}", query, position)
    problem = _refused(pattern)
    if problem:
        reason, place = _REASON.search(problem), _PLACE.search(problem)
        said = reason[1] if reason else "too large" if "size limit" in problem else problem.splitlines()[0]
        raise QueryError(f"regular expression: {said}", query, position + (len(place[1]) if place else 0))
    if _refused(f"(?:{pattern}){{{_INFLATE}}}") and _refused(f"(?:{pattern}\n){{{_INFLATE}}}"):
        raise QueryError("regular expression: too large; repeat less, or smaller classes", query, position)


def _refused(pattern: str) -> str | None:
    try:
        pl.Series([""]).str.contains(pattern)
    except pl.exceptions.PolarsError as error:
        return str(error)
    return None


def number(text: str) -> int | Decimal | None:
    """Return the number that a text is in JSON's notation, exactly; None when it is none, or beyond a double."""
    found = _NUMBER.fullmatch(text)
    if not found or len(text) > _MAX_DIGITS:
        return None
    if not found[1]:
        return int(text)
    return Decimal(text) if math.isfinite(float(text)) else None


def moment(text: str) -> datetime | None:
    """Return the time that a text is, which begins with a date as ISO 8601 has it; without a zone it is UTC."""
    return to_datetime(text) if _DATE.match(text) else None
