r"""The query language: text to tree, by recursive descent.

    query   = { or }                    nothing matches everything
    or      = and { "or" and }
    and     = not { [ "and" ] not }
    not     = { "-" | "not" } term
    term    = "(" or ")" | regex | text | field operator value
    field   = name | quoted             a column, else a (dotted) attribute; `attributes.x` is always an attribute
    operator= ":" | "=" | "!=" | "<" | "<=" | ">" | ">="
    value   = text | regex              a regular expression after ":" only
    text    = word, "quoted" with the escapes \" \\ \* \/ \n \r \t \uXXXX, both with `*`
    regex   = "/" expression "/" [ "i" ]

Text is a phrase of its words; between two `*` it is a substring; alone, `*` matches everything. A bare word ends at
white space, a parenthesis or a quote. After a field it is the whole value, with case; only after `message:` it is text
to search for, as without a field.
"""

import re
from typing import NamedTuple, NoReturn, cast

from logagg.protocols.levels import severity_of
from logagg.protocols.record import LEVELS
from logagg.protocols.times import to_datetime
from logagg.query import hints
from logagg.query.errors import QueryError
from logagg.query.syntax import (
    FOREIGN,
    LEVEL,
    MESSAGE,
    NAME,
    NUMBERS,
    TIMES,
    All,
    Compare,
    Equal,
    Exists,
    Field,
    Node,
    Operator,
    Phrase,
    Regex,
    Substring,
    Value,
    all_of,
    any_of,
    field_of,
    negation,
    quote,
)
from logagg.query.text import MAX_STARS, MAX_WORDS, check_regex, moment, number, words_of

MAX_QUERY = 65536
MAX_DEPTH = 100
MAX_TERMS = 1000
#: Each takes milliseconds to compile.
MAX_REGEXES = 20

_SPACE = re.compile(r"\s*")
_BARE = re.compile(r'[^\s()"]+')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_REGEX = re.compile(r"/((?:[^/\\]|\\.)*)/(i?)", re.DOTALL)
_KEYWORD = re.compile(r'(and|or|not)(?=[\s()"]|$)', re.IGNORECASE)
#: `::` and `://` are no operators: `std::io` and `https://example.com` are text.
_OPERATOR = re.compile(r"!=|<=|>=|[=<>]|:(?!:|//)")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)|(\*)", re.DOTALL)
_ESCAPED = {'"': '"', "\\": "\\", "*": "*", "/": "/", "n": "\n", "r": "\r", "t": "\t"}


class _Text(NamedTuple):
    """A word or a quoted text: its parts between unescaped stars, and where it stands."""

    parts: tuple[str, ...]
    position: int

    @property
    def plain(self) -> str:
        """As it was written, with escapes resolved."""
        return "*".join(self.parts)


def parse(text: str) -> Node:
    """Return the tree of a query. Raises QueryError, with a caret under the place."""
    if len(text) > MAX_QUERY:
        raise QueryError(f"query of {len(text)} characters, at most {MAX_QUERY}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise QueryError("half of a surrogate pair is no character", text, error.start) from None
    return _Parser(text).query()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.terms = 0
        self.regexes = 0

    def query(self) -> Node:
        self._space()
        if self.at == len(self.text):
            return All()
        node = self._or()
        if self.at < len(self.text):
            self._fail('")" without "("; to search for it, put it in quotes', self.at)
        return node

    def _or(self) -> Node:
        parts = [self._and()]
        while self._keyword("or"):
            parts.append(self._and())
        return any_of(parts)

    def _and(self) -> Node:
        parts = [self._not()]
        while self._more():
            self._keyword("and")
            parts.append(self._not())
        return all_of(parts)

    def _more(self) -> bool:
        """Tell whether another part of an `and` follows."""
        self._space()
        return self.at < len(self.text) and self.text[self.at] != ")" and self._next_keyword() != "or"

    def _not(self) -> Node:
        self._space()
        start, count = self.at, 0
        while self._keyword("not") or self._minus():
            count += 1
        self._deeper(count, start)
        node = self._term()
        self.depth -= count
        for _ in range(count):
            node = negation(node)
        return node

    def _minus(self) -> bool:
        if not self.text.startswith("-", self.at):
            return False
        self.at += 1
        if self.at == len(self.text) or self.text[self.at].isspace() or self.text[self.at] == ")":
            self._fail('expected a term right after "-"', self.at)
        return True

    def _term(self) -> Node:
        self._space()
        start = self.at
        self.terms += 1
        if self.terms > MAX_TERMS:
            self._fail(f"more than {MAX_TERMS} terms", start)
        following = self.text[start : start + 1]
        keyword = self._next_keyword()
        if following in ("", ")") or keyword:
            also = f'; to search for this word, write "{keyword}"' if keyword else ""
            self._fail('expected a word, a "phrase", field:value, /regex/ or "("' + also, start)
        if following == "(":
            return self._group()
        if following == "/":
            return self._regex(None)
        name = NAME.match(self.text, start)
        operator = _OPERATOR.match(self.text, name.end()) if name else None
        if name and operator:
            if hint := FOREIGN.get(name[0]):
                self._fail(f'{name[0]} is no field here; {hint}; the attribute is "{name[0]}", in quotes', start)
            self.at = operator.end()
            return self._condition(field_of(name[0]), operator[0])
        if foreign := hints.of_term(self.text, start):
            self._fail(f'"{foreign.sign}" means nothing outside quotes; {foreign.hint}', foreign.position)
        value = self._quoted() if following == '"' else self._bare()
        operator = _OPERATOR.match(self.text, self.at) if following == '"' else None
        if operator:
            self.at = operator.end()
            return self._condition(field_of(value.plain), operator[0])
        self._end_of_term()
        return self._words(None, value)

    def _group(self) -> Node:
        start = self.at
        self._deeper(1, start)
        self.at += 1
        node = self._or()
        if not self.text.startswith(")", self.at):
            self._fail('expected ")"; the "(" stands here', start)
        self.at += 1
        self.depth -= 1
        return node

    def _condition(self, field: Field, operator: str) -> Node:
        """Parse the value after field and operator."""
        start = self.at
        following = self.text[start : start + 1]
        if operator == ":" and following == "/":
            if not _is_text(field):
                self._fail(f"{field} is not text; a regular expression cannot match it", start)
            return self._regex(field)
        if operator in (":", "=", "!=") and (foreign := hints.of_value(self.text, start)):
            hint = f"{foreign.hint}; quote such a value"
            self._fail(f'expected a value right after "{field}{operator}"; {hint}', foreign.position)
        if following == '"':
            value = self._quoted()
        elif _BARE.match(self.text, start):
            value = self._bare()
        else:
            self._fail(f'expected a value right after "{field}{operator}"', start)
        if self.text.startswith("(", self.at):
            self._fail(f'expected a space before "("; one of several values is ({field}:a or {field}:b)', self.at)
        self._end_of_term()
        if operator in (":", "=", "!=") and value.plain and not "".join(value.parts):
            node: Node = Exists(field)
        elif not _is_text(field):
            node = self._compare(field, operator, value)
        elif operator == ":" and field == MESSAGE:
            node = self._words(field, value)
        elif operator in (":", "=", "!="):
            node = self._equal(field, value)
        else:
            node = self._compare(field, operator, value)
        return negation(node) if operator == "!=" else node

    def _equal(self, field: Field, value: _Text) -> Node:
        if len(value.parts) > MAX_STARS:
            self._fail(f'{len(value.parts) - 1} "*", at most {MAX_STARS}', value.position)
        first, *inner, last = value.parts if len(value.parts) > 1 else (*value.parts, None)
        return Equal(field, tuple(p for p in (first, *filter(None, inner), last) if p is not None))

    def _words(self, field: Field | None, value: _Text) -> Node:
        """Return what a text means where it is searched for."""
        inner = tuple(filter(None, value.parts))
        if not inner and value.plain:
            return All()
        if inner and len(value.parts) > 2 and not value.parts[0] and not value.parts[-1]:
            if len(inner) > MAX_STARS:
                self._fail(f'{len(inner)} pieces between "*", at most {MAX_STARS}', value.position)
            return Substring(field, inner)
        # A star that was escaped is a character like any other: no part of a word.
        words = words_of("*".join(part.replace("*", " ") for part in value.parts))
        if not any(word.strip("*") for word in words):
            shown = quote(value.plain)[1:-1] if len(value.plain) < 20 else "..."
            hint = f'to find these characters, write "*{shown}*"' if shown else 'the empty text is found by field=""'
            self._fail(f"no letter, digit or underscore in this text; {hint}", value.position)
        size = len(words) + sum(word.count("*") for word in words)
        if size > MAX_WORDS:
            self._fail(f'phrase of {size} words and "*", at most {MAX_WORDS}', value.position)
        return Phrase(field, words)

    def _compare(self, field: Field, operator: str, value: _Text) -> Node:
        text = value.plain
        if field.attribute:
            found: Value | None = moment(text) if number(text) is None else number(text)
            expected = "a number, or a time such as 2026-11-20T10:00,"
        elif field.name in NUMBERS:
            found, expected = number(text), "a number"
        elif field.name in TIMES:
            found, expected = to_datetime(text), "a time such as 2026-11-20T10:00 or 2026-11-20"
        elif field.name == LEVEL:
            severity = severity_of(text)
            found, expected = None if severity is None else LEVELS[severity], f"one of {' '.join(LEVELS)}"
        else:
            self._fail(f"{field} is text; it takes : = and != only", value.position)
        if found is None:
            self._fail(f'expected {expected} after "{field}{operator}"', value.position)
        return Compare(field, cast("Operator", "=" if operator in (":", "!=") else operator), found)

    def _regex(self, field: Field | None) -> Node:
        start = self.at
        found = _REGEX.match(self.text, start)
        if not found:
            self._fail('expected "/" at the end of the regular expression; text with a "/" stands in quotes', start)
        self.at = found.end()
        if self.at < len(self.text) and not self.text[self.at].isspace() and self.text[self.at] not in "()":
            self._fail('the regular expression ends before this; write "\\/" in it, or put a path in quotes', self.at)
        pattern = re.sub(r"\\(.)", lambda c: "/" if c[1] == "/" else c[0], found[1], flags=re.DOTALL)
        if not pattern:
            self._fail('expected a regular expression between "/" and "/"', start + 1)
        pattern = f"(?i){pattern}" if found[2] else pattern
        self.regexes += 1
        if self.regexes > MAX_REGEXES:
            self._fail(f"more than {MAX_REGEXES} regular expressions", start)
        check_regex(pattern, self.text, start + 1)
        return Regex(field, pattern)

    def _bare(self) -> _Text:
        start = self.at
        found = _BARE.match(self.text, start)
        assert found  # noqa: S101 - the caller saw a character of it
        self.at = found.end()
        return _Text(tuple(found[0].split("*")), start)

    def _quoted(self) -> _Text:
        start = self.at
        found = _QUOTED.match(self.text, start)
        if not found:
            self._fail("expected a closing quote; the opening one stands here", start)
        self.at = found.end()
        parts, last = [""], 0
        for escape in _ESCAPE.finditer(found[1]):
            parts[-1] += found[1][last : escape.start()]
            last = escape.end()
            if escape[2]:
                parts.append("")
            else:
                parts[-1] += self._escaped(escape[1], start + 1 + escape.start())
        parts[-1] += found[1][last:]
        return _Text(tuple(parts), start)

    def _escaped(self, code: str, position: int) -> str:
        found = chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPED.get(code)
        if found is None:
            self._fail(r"unknown escape; known are \" \\ \* \/ \n \r \t \uXXXX, and a backslash is \\", position)
        if "\ud800" <= found <= "\udfff":
            self._fail("half of a surrogate pair is no character", position)
        return found

    def _end_of_term(self) -> None:
        if self.text.startswith('"', self.at):
            self._fail("expected a space before the quote", self.at)
        if self.at < len(self.text) and not self.text[self.at].isspace() and self.text[self.at] not in "()":
            self._fail("expected a space after the quote", self.at)

    def _next_keyword(self) -> str | None:
        found = _KEYWORD.match(self.text, self.at)
        return found[1].lower() if found else None

    def _keyword(self, word: str) -> bool:
        """Take this keyword when it comes next."""
        self._space()
        if self._next_keyword() != word:
            return False
        self.at += len(word)
        return True

    def _space(self) -> None:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at

    def _deeper(self, levels: int, position: int) -> None:
        self.depth += levels
        if self.depth > MAX_DEPTH:
            self._fail(f"nested {self.depth} deep, at most {MAX_DEPTH}", position)

    def _fail(self, problem: str, position: int) -> NoReturn:
        raise QueryError(problem, self.text, position)


def _is_text(field: Field) -> bool:
    return field.attribute or field.name not in NUMBERS | TIMES | {LEVEL}
