r"""What people write who come from another language of queries, and how it is written here.

Each is an error that says so: there is one way to write a thing, and nothing silently means something else than its
writer thinks. In quotes all of it is text.
"""

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import NamedTuple

from logagg.query.syntax import NAME

_REGEX = "a regular expression is field:/expression/, and -field:/expression/ for not"
_NOT = "without a word is -word, another value field!=value"
_START = r'[^\s()"]*?'


class Foreign(NamedTuple):
    """A sign of another language: itself, where it stands, and what is written here."""

    sign: str
    position: int
    hint: str


#: Where a term begins that is no field with an operator; the sign is the last group.
_TERMS = [
    (re.compile(pattern), hint)
    for pattern, hint in [
        (r'=|[<>]=?(?=[\s\d"]|$)', "field, comparison and value stand side by side: status>=500"),
        (rf"(?:{NAME.pattern}(?=!:))?(!=?)", _NOT),
        (r"\{", "fields are terms like words: host=a service=b"),
        (rf"{_START}(&&)", 'both words is "a b", or "a and b"'),
        (rf"{_START}(\|\|?)", 'one of two is "a or b"; there are no pipes'),
        (rf'(?:{NAME.pattern}|(?=~"))(!?~)', _REGEX),
        (r"""['`](?![^\s()"]*['`])""", 'a phrase stands in "'),
    ]
]
#: Where a value begins.
_VALUES = [
    (re.compile(pattern), hint)
    for pattern, hint in [
        (r"[<>=]", "comparisons are = != < <= > >="),
        (r"!?~", _REGEX),
        (r"!", "another value is field!=value"),
        (r"['`]", 'quotes are "'),
        (rf"{_START}(\|)", "one of two values is (field:a or field:b)"),
        (r"[\[{]\S+\s+TO\s", "a range is two comparisons: a>=1 a<=5"),
    ]
]
#: Parameters of other HTTP interfaces, and what is meant.
_PARAMETERS = {
    "q": {"query", "filter"},
    "start_time": {"since", "start", "from"},
    "end_time": {"until", "end", "to"},
    "limit": {"size", "n", "count"},
    "cursor": {"offset"},
}
_MEANT = {other: ours for ours, others in _PARAMETERS.items() for other in others}
#: As alike as `hosts` and `host`, `enviroment` and `environment`; not as `resource` and `source`.
_ALIKE = 0.87
#: Too like `status` and `state`, which mean something else.
_NEVER_MEANT = {"stats"}


def of_term(text: str, start: int) -> Foreign | None:
    """Return what is foreign about the term that begins there."""
    return _first(_TERMS, text, start)


def of_value(text: str, start: int) -> Foreign | None:
    """Return what is foreign about the value that begins there."""
    return _first(_VALUES, text, start)


def of_parameter(name: str, known: Collection[str]) -> str | None:
    """Return which of the known parameters somebody meant who wrote this unknown one; None if that is not evident."""
    lowered = name.lower()
    if _MEANT.get(lowered) in known:
        return _MEANT[lowered]
    if lowered in known:
        return lowered
    return next(iter(get_close_matches(lowered, set(known) - _NEVER_MEANT, n=1, cutoff=_ALIKE)), None)


def _first(hints: list[tuple[re.Pattern[str], str]], text: str, start: int) -> Foreign | None:
    for pattern, hint in hints:
        if found := pattern.match(text, start):
            return Foreign(found[pattern.groups], found.start(pattern.groups), hint)
    return None
