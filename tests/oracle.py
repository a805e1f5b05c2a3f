"""Random questions as text, each with what it means for one record, written down from the definition of the language.

Nothing here knows of the parser or its trees: a question is put together as text, and its meaning beside it.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple

from hypothesis import strategies as st
from queries import (  # type: ignore[import-not-found]  # pytest has this folder on the path
    LETTERS,
    NOON,
    OTHERS,
    Lexeme,
    as_number,
    at,
    fold,
    leaves,
    word_fits,
    words_in,
)

#: A record as columns, `attributes` as Python has them, `level` besides `severity`.
Row = dict[str, Any]
Meaning = Callable[[Row], bool]

LEVELS = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"]
TEXTS = ["service", "host", "environment", "source", "message", "trace_id"]
COLUMNS = [*TEXTS, "span_id", "id", "timestamp", "received_at", "level", "severity", "facility"]


class Asked(NamedTuple):
    """A part of a question: its text, its meaning, and how strongly its text holds together."""

    text: str
    meaning: Meaning
    #: 0 joined by `or`, 1 by `and`, 2 a term that may follow a minus.
    bond: int = 2


# Values that need care, in records and questions alike

#: The first are drawn more often, so that records and questions meet.
names = [
    *["a", "a.b", "b"] * 4,
    "a",
    "b",
    "a.b",
    "a.b.c",
    "a:b",
    "x y",
    'q"k',
    "é",
    "k/k",
    "",
    "or",
    "service",
    "level",
    "attributes.a",
    "0",
    "*",
]
few = st.sampled_from(["a", "b", "ab", "A", "ſ", "s", "straße", "STRASSE", "STRAẞE", "İ", "i", "42", "४२", "x_1", "_"])
words = few | st.text(LETTERS, min_size=1, max_size=3)
pieces = (
    words | st.sampled_from([" ", "a b", "true", "null", "1e5", "*", '"', "\\", "\u0301"]) | st.text(OTHERS, max_size=2)
)
texts = st.lists(pieces, max_size=4).map("".join)
digits = [
    "0",
    "-1",
    "42",
    "42.0",
    "42.5",
    "0.1",
    "0.10000000000000001",
    "9007199254740993",
    "9007199254740992",
    "1" * 30,
]
numbers = st.sampled_from(digits)
scalars = st.none() | st.booleans() | texts | numbers | st.just("007") | st.just("2026-11-20") | numbers.map(Lexeme)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(names), inner, max_size=2),
    max_leaves=4,
)
MINUTE = timedelta(minutes=1)
moments = st.sampled_from([
    NOON, NOON + timedelta(microseconds=1), NOON + MINUTE - timedelta(microseconds=1), NOON + MINUTE,
    NOON + 1.5 * MINUTE, NOON + 60 * MINUTE, NOON - timedelta(days=1), datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
    datetime(9999, 12, 31, tzinfo=UTC), datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC),
])  # fmt: skip
rows = st.fixed_dictionaries({
    "timestamp": moments,
    "received_at": st.sampled_from([NOON, NOON + timedelta(hours=13)]),
    "severity": st.integers(0, 7),
    "facility": st.none() | st.integers(0, 23),
    "environment": st.sampled_from([None, "test", ""]),
    "host": st.none() | texts,
    "service": st.sampled_from([None, "api", "API", "pay-api", "", "*"]),
    "source": st.just("127.0.0.1"),
    "message": texts,
    "attributes": st.none() | st.dictionaries(st.sampled_from(names), values, max_size=3),
    "trace_id": st.sampled_from([None, "0af7", "0AF7"]),
})  # fmt: skip


# How text is written


def escaped(text: str, *, star: str = "\\*") -> str:
    return re.sub(r'["\\]', r"\\\g<0>", text).replace("*", star)


def bare(text: str) -> bool:
    """Whether a value may stand without quotes, stars in it being stars."""
    return re.fullmatch(r"[\w*][\w*.,;@-]*", text) is not None and text.lower() not in ("and", "or", "not")


@st.composite
def patterns(draw: st.DrawFn) -> str:
    """A word, with stars or not."""
    word = draw(words)
    return draw(st.sampled_from([word, word, f"{word}*", f"*{word}", word[:1] + "*" + word[1:], f"{word[:1]}*"]))


class Place(NamedTuple):
    """A field: its text, its value in a record, and whether it is a column."""

    text: str
    value_of: Callable[[Row], Any]
    column: bool


def column(name: str) -> Place:
    return Place(name, lambda row: row[name], True)


@st.composite
def attributes(draw: st.DrawFn) -> Place:
    name = draw(st.sampled_from(names))
    spelled = f"attributes.{name}" if name in COLUMNS or name.startswith("attributes.") else name
    if not re.fullmatch(r"[^\W\d][\w./]*", spelled) or draw(st.booleans()):
        spelled = f'"{escaped(spelled)}"'
    return Place(spelled, lambda row: at(row["attributes"] or {}, name), False)


def fields(columns: list[str]) -> st.SearchStrategy[Place]:
    return attributes() | attributes() | st.sampled_from(columns).map(column)


# What conditions mean


def somewhere(found: Callable[[str], bool]) -> Meaning:
    """In the message or in a value of the attributes."""
    return lambda row: found(row["message"]) or any(map(found, leaves(row["attributes"])))


def in_message(found: Callable[[str], bool]) -> Meaning:
    return lambda row: found(row["message"])


def has_phrase(wanted: list[str]) -> Callable[[str], bool]:
    def found(text: str) -> bool:
        there = words_in(text)
        return any(all(map(word_fits, wanted, there[i : i + len(wanted)])) for i in range(len(there) - len(wanted) + 1))

    return found


def has_pieces(wanted: list[str]) -> Callable[[str], bool]:
    return lambda text: (
        re.search(".*".join(re.escape(fold(piece)) for piece in wanted), fold(text), re.DOTALL) is not None
    )


def is_exactly(parts: list[str], *, numbers: bool) -> Callable[[str], bool]:
    """The whole value; between two parts anything. In attributes, what is a number is equal as a number."""
    whole = re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
    wanted = as_number(parts[0]) if numbers and len(parts) == 1 else None
    return lambda text: whole.fullmatch(text) is not None or (wanted is not None and as_number(text) == wanted)


def any_value(value: Any, holds: Callable[[str], bool]) -> bool:
    return any(map(holds, leaves(value)))


def compared(sign: str, one: Any, other: Any) -> bool:
    return bool({"<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other, "=": one == other}[sign])


# The terms


@st.composite
def phrases(draw: st.DrawFn) -> Asked:
    wanted = draw(st.lists(patterns(), min_size=1, max_size=3))
    field, where = draw(st.sampled_from([("", somewhere), ("", somewhere), ("message:", in_message)]))
    meaning = where(has_phrase(wanted))
    if all(map(bare, wanted)) and not (len(wanted) > 1 and draw(st.booleans())) and not field:
        joined = draw(st.sampled_from(["-", ".", ",", "-."])).join(wanted)
        if not (joined.startswith("*") and joined.endswith("*")):
            return Asked(joined, meaning)
    between = draw(st.sampled_from([" ", "  ", "-", " \\\\ ", ' \\" ', "\\n", " \\* ", "\u0301", "😀"]))
    text = between.join(wanted)
    if text.startswith("*") and text.endswith("*"):  # else it were a piece of text
        text = f" {text}"
    return Asked(f'{field}"{text}"', meaning)


@st.composite
def substrings(draw: st.DrawFn) -> Asked:
    wanted = draw(st.lists(texts.filter(bool), min_size=1, max_size=2))
    field, where = draw(st.sampled_from([("", somewhere), ("message:", in_message)]))
    return Asked(f'{field}"*{"*".join(map(escaped, wanted))}*"', where(has_pieces(wanted)))


#: As the engine takes it, and as Python does.
EXPRESSIONS = [
    ("a", "a"), ("^a", "^a"), (r"a$", r"a\Z"), ("a.b", "a.b"), ("[0-9]+", "[0-9]+"), ("a|s", "a|s"), ("^$", r"^\Z"),
    ('"', '"'), (r"\\", r"\\"), (r"\/", "/"), ("(a b)", "(a b)"), (r"\*", r"\*"), ("é", "é"),
]  # fmt: skip


@st.composite
def expressions(draw: st.DrawFn) -> Asked:
    pattern, same = draw(st.sampled_from(EXPRESSIONS))
    flag = draw(st.sampled_from(["", "i"])) if pattern in ("a", "a.b", "(a b)") else ""
    compiled = re.compile(same, re.IGNORECASE if flag else 0)

    def found(text: str) -> bool:
        return compiled.search(text) is not None

    if draw(st.booleans()):
        return Asked(f"/{pattern}/{flag}", somewhere(found))
    field = draw(fields(TEXTS))
    return Asked(f"{field.text}:/{pattern}/{flag}", lambda row: any_value(field.value_of(row), found))


@st.composite
def exact(draw: st.DrawFn, places: st.SearchStrategy[Place] = fields(TEXTS)) -> Asked:  # noqa: B008 - never changes
    field = draw(places)
    value = draw(texts | numbers | st.sampled_from(["api", "API", "pay-api", "true", "0af7", "test", "007"]))
    cut = draw(st.integers(0, len(value)))
    parts = draw(st.sampled_from([[value], [value], [value[:cut], value[cut:]], [value[:cut], ""], ["", value[cut:]]]))
    parts = parts if len(parts) == 1 or "".join(parts) else ["a", ""]
    written = "*".join(parts)
    if "*" in value or not bare(written) or draw(st.booleans()):
        written = f'"{"*".join(map(escaped, parts))}"'
    sign = draw(st.sampled_from(["=", "!="] if field.text == "message" else [":", "=", "!="]))
    holds = is_exactly(parts, numbers=not field.column)
    return Asked(f"{field.text}{sign}{written}", lambda row: any_value(field.value_of(row), holds) != (sign == "!="))


@st.composite
def exists(draw: st.DrawFn, places: st.SearchStrategy[Place] = fields(COLUMNS)) -> Asked:  # noqa: B008 - the same
    field, sign = draw(places), draw(st.sampled_from([":", "=", "!="]))
    return Asked(f"{field.text}{sign}*", lambda row: (field.value_of(row) is not None) != (sign == "!="))


signs = st.sampled_from(["<", "<=", ">", ">="])


@st.composite
def levels(draw: st.DrawFn) -> Asked:
    sign, wanted = draw(signs | st.just("=")), draw(st.integers(0, 7))
    name = draw(st.sampled_from([LEVELS[wanted], LEVELS[wanted].upper()]))
    # `>` is more severe, which is a smaller number
    return Asked(f"level{sign}{name}", lambda row: compared(sign, -row["severity"], -wanted))


@st.composite
def numeric(draw: st.DrawFn) -> Asked:
    sign, wanted = draw(signs), draw(numbers | st.sampled_from(["-0.5", "1e5", "1" * 29]))
    field = draw(attributes() | st.sampled_from(["severity", "facility", "id"]).map(column))

    def holds(text: str) -> bool:
        number = as_number(text)
        return number is not None and compared(sign, number, Fraction(wanted))

    def meaning(row: Row) -> bool:
        value = field.value_of(row)
        return any_value(str(value) if field.column and value is not None else value, holds)

    return Asked(f"{field.text}{sign}{wanted}", meaning)


@st.composite
def timed(draw: st.DrawFn) -> Asked:
    name, sign, wanted = draw(st.sampled_from(["timestamp", "received_at"])), draw(signs | st.just("=")), draw(moments)
    forms = [wanted.isoformat(), wanted.isoformat().replace("+00:00", "Z"), wanted.isoformat()[:-6]]
    return Asked(f"{name}{sign}{draw(st.sampled_from(forms))}", lambda row: compared(sign, row[name], wanted))


@st.composite
def dates(draw: st.DrawFn) -> Asked:
    """Attributes whose text is a time; here each is the same day."""
    field, sign, day = (
        draw(attributes()),
        draw(signs),
        draw(st.sampled_from(["2026-11-19", "2026-11-20", "2026-11-21"])),
    )

    def holds(text: str) -> bool:
        return text == "2026-11-20" and compared(sign, text, day)

    return Asked(f"{field.text}{sign}{day}", lambda row: any_value(field.value_of(row), holds))


everything = st.builds(Asked, st.sampled_from(["*", '"*"']), st.just(lambda _: True))
terms = st.one_of(
    phrases(),
    phrases(),
    substrings(),
    expressions(),
    exact(),
    exact(),
    exists(),
    levels(),
    numeric(),
    timed(),
    dates(),
    everything,
)


# And their joins


def held(part: Asked, bond: int) -> str:
    """The text of a part, in parentheses where it would fall apart."""
    return part.text if part.bond >= bond else f"({part.text})"


def negated(part: Asked, sign: str) -> Asked:
    return Asked(f"{sign}{held(part, 2)}", lambda row: not part.meaning(row))


def joined(parts: list[Asked], word: str, bond: int) -> Asked:
    every = any if bond == 0 else all
    return Asked(word.join(held(part, bond) for part in parts), lambda row: every(p.meaning(row) for p in parts), bond)


def joins(terms: st.SearchStrategy[Asked]) -> st.SearchStrategy[Asked]:
    return st.recursive(
        terms,
        lambda inner: st.one_of(
            st.builds(negated, inner, st.sampled_from(["-", "not ", "NOT "])),
            st.builds(
                joined, st.lists(inner, min_size=2, max_size=3), st.sampled_from([" ", " and ", "  AND\n"]), st.just(1)
            ),
            st.builds(joined, st.lists(inner, min_size=2, max_size=3), st.sampled_from([" or ", "\tOR "]), st.just(0)),
            inner.map(lambda part: Asked(f"( {part.text})", part.meaning)),
        ),
        max_leaves=5,
    )


#: What looks at nothing that a summary does not know.
summed = st.sampled_from(["service", "environment"]).map(column)
summable = joins(exact(summed) | exists(summed) | levels() | levels() | everything)
questions = joins(terms)
