"""The words that every match of a query must hold, so that a batch without them can be skipped.

They stand in a tree of the same nodes: `Phrase(None, (word,))` is a word, `All` is nothing known. A word counts only
where it is sure to stand whole in the record: next to a `*` it may be cut.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from logagg.query.syntax import TEXTS, All, And, Equal, Node, Or, Phrase, Substring, any_of
from logagg.query.text import number
from logagg.sinks.words import fold, known

#: More words than these make a question slower, not narrower.
MAX_ASKED = 32


def words_needed(node: Node) -> Node:
    """Return the words that every match holds, `All` where nothing is known."""
    match node:
        case And(parts):
            return _both([words_needed(part) for part in parts])
        case Or(parts):
            sides = [words_needed(part) for part in parts]
            return All() if All() in sides else any_of(sides)
        case Phrase(_, words):
            return _both([_word(word) for word in words if "*" not in word])
        case Substring(_, parts):
            return _both([_word(word) for part in parts for word in _whole(part, cut_left=True, cut_right=True)])
        case Equal(field, parts) if field.attribute or field.name in TEXTS:
            return _equal(parts, number(parts[0]) if field.attribute and len(parts) == 1 else None)
        case _:
            return All()


def _equal(parts: tuple[str, ...], value: int | Decimal | None) -> Node:
    if isinstance(value, Decimal):
        return All()  # many ways to write it
    last = len(parts) - 1
    return _both(
        [
            _word(word)
            for place, part in enumerate(parts)
            for word in _whole(part, cut_left=place > 0, cut_right=place < last)
        ]
    )


def _whole(text: str, *, cut_left: bool, cut_right: bool) -> Sequence[str]:
    """Return the words of a text, as filters have them, of which an end may be cut: there, the word may go on."""
    found = fold(f"{'a' * cut_left}{text}{'a' * cut_right}".encode()).decode().split("\0")
    found = [word for word in found if word]
    return found[1 if cut_left else 0 : len(found) - 1 if cut_right else None]


def _word(word: str) -> Node:
    return Phrase(None, (word,))


def _both(parts: Sequence[Node]) -> Node:
    """Join by and; what says nothing is left out."""
    known = [part for part in dict.fromkeys(parts) if part != All()]
    flat = tuple(inner for part in known for inner in (part.parts if isinstance(part, And) else (part,)))
    return And(flat) if len(flat) > 1 else flat[0] if flat else All()


def words_in(tree: Node) -> list[str]:
    """Return the words to ask for, at most `MAX_ASKED`, long ones first: they are the rarest."""
    found: dict[str, None] = {}
    rest = [tree]
    while rest:
        match rest.pop():
            case Phrase(_, (word,)) if known(word):
                found[word] = None
            case And(parts) | Or(parts):
                rest.extend(parts)
    return sorted(found, key=len, reverse=True)[:MAX_ASKED]


def may_match(tree: Node, held: Mapping[str, bool]) -> bool:
    """Tell whether a batch may hold a match, by which words it may hold; words not asked for may be there."""
    match tree:
        case Phrase(_, (word,)):
            return held.get(word, True)
        case And(parts):
            return all(may_match(part, held) for part in parts)
        case Or(parts):
            return any(may_match(part, held) for part in parts)
        case _:
            return True
