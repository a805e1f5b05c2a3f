r"""What of a printed record matched, for the eye.

The words, phrases, pieces of text and regular expressions of a query that stand without "not" before them, found again
in what is printed. The language's own parser is in `query/` and brings its engine along, which takes longer to load
than a search takes; this is a reader of its terms only, for a query that the server has understood already. What it
cannot follow, it does not colour.
"""

import re
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from logagg.cli.terminal import paint

#: SGR code of what matched: black on yellow, which no level and no service has.
HIT = "30;43"
#: Seconds for a user's regular expressions in one text: Python's engine may need for ever where the server's does not.
_PATIENCE = 0.05

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_TERM = re.compile(
    rf"""\s*(?:
      (?P<paren>[()])
    | (?P<minus>-(?=\S))
    | (?P<keyword>(?i:and|or|not)(?=[\s()"]|$))
    | (?:(?P<field>(?:[^\W\d]|@)[\w.@$/-]*|{_QUOTED})(?P<operator>!=|<=|>=|[=<>]|:(?!:|//)))?
      (?:(?P<regex>/(?:[^/\\]|\\.)*/i?)|(?P<quoted>{_QUOTED})|(?P<bare>[^\s()"]+))
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}
#: Stands for a star that was escaped: it is no wildcard.
_STAR = "\ue000"
_FLAGS = re.compile(r"\(\?([ims]+)\)")


class _TooLong(Exception):
    """The time for regular expressions is over."""


class Terms(NamedTuple):
    """What is looked for in texts, and the attributes whose values were asked for."""

    #: Python expressions that need no more time than the text is long; and the user's own.
    plain: list[str]
    own: list[str]
    fields: set[str]


class Highlight:
    """Colours what matched."""

    def __init__(self, query: str) -> None:
        terms = terms_of(query)
        self._fields = terms.fields
        self._plain = _joined(terms.plain)
        # Only the main thread can be told that the time is over.
        own = terms.own if threading.current_thread() is threading.main_thread() else []
        self._all = _joined([*terms.plain, *own]) if own else None

    def mark(self, text: str, code: str = "") -> str:
        """Colour what matched in a text, and the rest with `code`."""
        parts, at = [], 0
        for start, end in self._found(text):
            parts += [_painted(text[at:start], code), _painted(text[start:end], HIT)]
            at = end
        return "".join(parts) + _painted(text[at:], code)

    def value(self, path: str, text: str, code: str) -> str:
        """Colour the value of an attribute: all of it when the query named the attribute."""
        return _painted(text, HIT) if path in self._fields else self.mark(text, code)

    def _found(self, text: str) -> list[tuple[int, int]]:
        if self._all:
            try:
                with _within(_PATIENCE):
                    return _places(self._all, text)
            except _TooLong:
                self._all = None
        return _places(self._plain, text) if self._plain else []


def terms_of(query: str) -> Terms:
    """Read the terms of a query that are not negated."""
    terms = Terms([], [], set())
    negated, groups = False, [False]
    for term in _TERM.finditer(query):
        if term["paren"] == "(":
            groups.append(groups[-1] or negated)
        elif term["paren"]:
            groups.pop() if len(groups) > 1 else None
        elif term["minus"] or (term["keyword"] or "").lower() == "not":
            negated = True
            continue
        elif not (term["keyword"] or negated or groups[-1] or term["operator"] == "!="):
            _take(term, terms)
        negated = False
    return terms


def _take(term: re.Match[str], terms: Terms) -> None:
    field = _plain(term["field"]) if term["field"] else "message"
    if field != "message":
        terms.fields.add(field.removeprefix("attributes."))
    elif term["regex"]:
        pattern, _, flags = term["regex"][1:].rpartition("/")
        found = _FLAGS.match(pattern)
        pattern = f"(?{found[1]}:{pattern[found.end() :]})" if found else f"(?:{pattern})"
        pattern = f"(?i:{pattern})" if flags else pattern
        if _compiled(pattern):
            terms.own.append(pattern)
    elif pattern := _pattern(_plain(term["quoted"]) if term["quoted"] else term["bare"]):
        terms.plain.append(pattern)


def _plain(text: str) -> str:
    """Take away quotes and escapes; a star that was escaped becomes `_STAR`."""
    if not text.startswith('"'):
        return text

    def resolved(found: re.Match[str]) -> str:
        code = found[1]
        return chr(int(code[1:], 16)) if len(code) == 5 else _STAR if code == "*" else _ESCAPED.get(code, code)

    return _ESCAPE.sub(resolved, text[1:-1])


def _pattern(text: str) -> str | None:
    """Return the expression for a word, a phrase, or a piece of text between stars; None for nothing."""
    if len(text) > 2 and text[0] == text[-1] == "*" and text.strip("*"):
        parts = [re.escape(part.replace(_STAR, "*")) for part in text.split("*") if part]
        return f"(?is:{'.*?'.join(parts)})" if len(parts) == 1 else "|".join(f"(?i:{part})" for part in parts)
    words = re.findall(r"[\w*]+", text.replace(_STAR, " "))
    if not any(word.strip("*") for word in words):
        return None
    inner = r"\W+".join(r"\w*".join(map(re.escape, re.split(r"\*+", word))) for word in words)
    return rf"(?<!\w)(?i:{inner})(?!\w)"


def _joined(patterns: list[str]) -> re.Pattern[str] | None:
    return _compiled("|".join(patterns)) if patterns else None


def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Python will once read otherwise; the server has read it already
            return re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return None  # the server's engine knows what Python's does not


def _places(pattern: re.Pattern[str], text: str) -> list[tuple[int, int]]:
    return [found.span() for found in pattern.finditer(text) if found[0]]


def _painted(text: str, code: str) -> str:
    """Colour each line by itself, so that what stands before a line keeps its own colour."""
    return "\n".join(paint(line, code) if line else "" for line in text.split("\n"))


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise _TooLong in the main thread when the time is over; Python's engine looks for signals as it goes."""

    def over(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, over)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
