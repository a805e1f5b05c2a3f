"""The tree of a query: what the parser makes and the evaluator walks.

`str` of a node is query text that parses to an equal tree.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple

#: Columns that hold text, numbers and times. `level` is the name of `severity`.
TEXTS = frozenset({"environment", "host", "service", "source", "message", "trace_id", "span_id"})
NUMBERS = frozenset({"id", "severity", "facility"})
TIMES = frozenset({"timestamp", "received_at"})
LEVEL = "level"
COLUMNS = TEXTS | NUMBERS | TIMES | {LEVEL}

#: Before the name of an attribute that has the name of a column.
ATTRIBUTES = "attributes."

#: A field name that needs no quotes.
NAME = re.compile(r"(?:[^\W\d]|@)[\w.@$/-]*")
KEYWORDS = frozenset({"and", "or", "not"})

#: Fields of other languages, and what is written here. An attribute of such a name is asked for in quotes.
FOREIGN = {
    "_msg": "the message is searched by message:word, or the word alone",
    "_time": "a time is timestamp>=2026-11-20T10:00",
    "_stream": "fields are terms like words: host=a service=b",
    "_exists_": "a field that is there is field:*",
}

Operator = Literal["=", "<", "<=", ">", ">="]
#: What fields are compared with: a number, a time, or the name of a level as in `LEVELS`.
Value = int | Decimal | datetime | str

_BARE = re.compile(r"[\w*]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "*": "\\*", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Field(NamedTuple):
    """A column, or the attribute at a path."""

    name: str
    attribute: bool

    def __str__(self) -> str:
        if not self.attribute:
            return self.name
        name = self.name
        if name in COLUMNS or name.startswith(ATTRIBUTES):
            name = ATTRIBUTES + name
        return name if NAME.fullmatch(name) and name not in FOREIGN else quote(name)


#: The one field in which words are searched for.
MESSAGE = Field("message", False)


def field_of(name: str) -> Field:
    """Return the field that a name in a query means: a column before an attribute."""
    if name in COLUMNS:
        return Field(name, False)
    return Field(name.removeprefix(ATTRIBUTES) if name != ATTRIBUTES else name, True)


def quote(text: str) -> str:
    """Return the text in quotes, with nothing in it that means more than itself."""
    return f'"{"".join(_ESCAPES.get(c, c) for c in text)}"'


@dataclass(frozen=True, slots=True)
class All:
    """Every record."""

    def __str__(self) -> str:
        return "*"


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words next to each other in this order, without case, in the message; without a field: or in an attribute value.

    In a word `*` stands for any letters, digits and underscores; a word that is only `*` for any one word.
    """

    field: Field | None
    words: tuple[str, ...]

    def __str__(self) -> str:
        text = " ".join(self.words)
        if text.startswith("*") and text.endswith("*"):
            text = "-" + text  # otherwise it were a substring
        bare = _BARE.fullmatch(text) and text.lower() not in KEYWORDS
        return _prefix(self.field) + (text if bare else f'"{text}"')


@dataclass(frozen=True, slots=True)
class Substring:
    """These pieces of text in this order, anything between them, without case. Without a field: as `Phrase`."""

    field: Field | None
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return f'{_prefix(self.field)}"*{"*".join(quote(part)[1:-1] for part in self.parts)}*"'


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression of the linear engine, with case. Without a field: as `Phrase`."""

    field: Field | None
    pattern: str

    def __str__(self) -> str:
        return _prefix(self.field) + "/" + self.pattern.replace("/", "\\/") + "/"


@dataclass(frozen=True, slots=True)
class Equal:
    """The whole text, with case; between two parts anything may stand. Attributes: equal as numbers, too."""

    field: Field
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return f'{self.field}="{"*".join(quote(part)[1:-1] for part in self.parts)}"'


@dataclass(frozen=True, slots=True)
class Compare:
    """A number, a time, or a level: `>` means more severe."""

    field: Field
    operator: Operator
    value: Value

    def __str__(self) -> str:
        value = self.value.isoformat() if isinstance(self.value, datetime) else self.value
        return f"{self.field}{self.operator}{value}"


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there and not null."""

    field: Field

    def __str__(self) -> str:
        return f"{self.field}:*"


@dataclass(frozen=True, slots=True)
class Not:
    """The records that do not match."""

    part: "Node"

    def __str__(self) -> str:
        return f"-{_group(self.part, And, Or)}"


@dataclass(frozen=True, slots=True)
class And:
    """The records that match all parts, of which there are at least two, none of them `And`."""

    parts: tuple["Node", ...]

    def __str__(self) -> str:
        return " ".join(_group(part, Or) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    """The records that match any part, of which there are at least two, none of them `Or`."""

    parts: tuple["Node", ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.parts))


Node = All | Phrase | Substring | Regex | Equal | Compare | Exists | Not | And | Or


#: No record: the other condition without a field to look into. Neither of the two stands within another node.
NOTHING = Not(All())


def all_of(parts: list[Node]) -> Node:
    """Join by and: none is `All`, one is itself."""
    flat = tuple(part for part in _flat(parts, And) if part != All())
    if NOTHING in flat:
        return NOTHING
    return And(flat) if len(flat) > 1 else flat[0] if flat else All()


def any_of(parts: list[Node]) -> Node:
    """Join by or; at least one part."""
    flat = tuple(part for part in _flat(parts, Or) if part != NOTHING)
    if All() in flat:
        return All()
    return Or(flat) if len(flat) > 1 else flat[0] if flat else NOTHING


def negation(part: Node) -> Node:
    """Return the records that do not match."""
    return All() if part == NOTHING else Not(part)


def conjuncts(node: Node) -> tuple[Node, ...]:
    """Return conditions that must all hold."""
    return node.parts if isinstance(node, And) else () if isinstance(node, All) else (node,)


def _flat(parts: list[Node], kind: type[And] | type[Or]) -> Iterator[Node]:
    for part in parts:
        if isinstance(part, kind):
            yield from part.parts
        else:
            yield part


def _prefix(field: Field | None) -> str:
    return f"{field}:" if field else ""


def _group(part: Node, *kinds: type[Node]) -> str:
    return f"({part})" if isinstance(part, kinds) else str(part)
