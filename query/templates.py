"""Log template mining: which statement of which program wrote each message, told from the messages alone.

    mine(["Accepted password for ann from 10.0.0.7", "Accepted password for bob from 10.0.0.9", ...])
    # labels [0, 0, ...], templates ["Accepted password for <*> from <*>", ...]

Three steps. (1) What is data by its shape is masked, word by word (`masks.py`), and equal lines are counted as one.
(2) Masked lines of the same number of pieces are split, top down, by the place where the fewest different pieces stand,
until in each group every place either holds one piece or holds values (`_value_like` says when). (3) Each group is
written as a template: what all its lines share, and `<*>` for the rest.

Only sets of lines decide, never their order or how often each occurs, so the same messages in any order give the same
templates and the same groups. Of a message the first line that is not blank counts (what follows is a stack trace or a
body), tabs read as spaces; of a very long line only the beginning (`MAX_LINE`, `MAX_PIECES`).
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

from logagg.query.masks import VARIABLE, join_values, line_masker, mask_phrases

#: Pieces of a masked line that are compared; `<*>` stands for the rest.
MAX_PIECES = 100

# How many different pieces in one place of otherwise like lines make it variable, by what the pieces look like. The
# accuracy on ten systems of known truth moves by less than 0.001 between 4 and 12 words, and 8 and 20 fixed ones.
_NAMES = 2
_WORDS = 6
_FIXED = 10
_CERTAIN = 200

#: One line cut into pieces; joined they give the line again.
Pieces = tuple[str, ...]


class Mined(NamedTuple):
    """Messages, or lines, grouped by template."""

    #: For each of them the index of its template.
    labels: list[int]
    #: Sorted, without repeats; `<*>` stands for any text, also none.
    templates: list[str]


class Miner:
    """Groups messages by template; they may come in many portions.

    Raises nothing, whatever the text. Time and memory grow with the number of different lines, and a line costs at most
    what its first `MAX_LINE` characters do. It computes without pause: an event loop should call it in a thread, and
    one thread at a time.
    """

    def __init__(self) -> None:
        self._mask = line_masker()
        self._lines: dict[str, int] = {}
        #: Characters of the different lines.
        self.size = 0

    def add(self, messages: Sequence[str]) -> list[int]:
        """Return for each message the number of its line, by which `mined` tells the template."""
        lines, mask = self._lines, self._mask
        of_message: dict[str, int] = {}
        for message in messages:
            if message not in of_message:
                line = mask(head(message))
                if line not in lines:
                    lines[line] = len(lines)
                    self.size += len(line)
                of_message[message] = lines[line]
        return [of_message[message] for message in messages]

    def mined(self, numbers: Sequence[int]) -> Mined:
        """Return the templates of the lines with these numbers; no other line has a say in them."""
        lines = list(self._lines)
        template_of = _templates([mask_phrases(lines[number]) for number in numbers])
        templates = sorted(set(template_of))
        place = {template: index for index, template in enumerate(templates)}
        return Mined([place[template] for template in template_of], templates)


def mine(messages: Sequence[str]) -> Mined:
    """Group messages by the template they were written from."""
    miner = Miner()
    lines = miner.add(messages)
    labels, templates = miner.mined(range(max(lines, default=-1) + 1))
    return Mined([labels[line] for line in lines], templates)


def head(message: str) -> str:
    """Return what is compared of a message: its first line that is not blank, without tabs and outer spaces."""
    return message.lstrip().partition("\n")[0].rstrip().replace("\t", " ")


def _templates(lines: Sequence[str]) -> list[str]:
    """Return the template of each masked line."""
    by_length: defaultdict[int, dict[Pieces, list[tuple[str, Pieces]]]] = defaultdict(dict)
    for line in set(lines):
        pieces = _cut(line)
        compared = _comparable(line, pieces)
        by_length[len(compared)].setdefault(compared, []).append((line, pieces))
    kind = lru_cache(1 << 16)(_kind)
    template_of: dict[str, str] = {}
    for rows in by_length.values():
        for group in _split(list(rows), kind):
            members = [member for row in group for member in rows[row]]
            template = _template(group, [pieces for _, pieces in members])
            template_of.update((line, template) for line, _ in members)
    return [template_of[line] for line in lines]


# A piece is what may vary on its own: a word, the value after `key=`, an item of an unspaced list, with the punctuation
# and the spaces that follow. Text in quotes is one value, whatever is in it; but a capital word that opens it is a
# verb (the method of an HTTP request, a statement of SQL), and then it is read like any text.
_PIECE = re.compile(
    r"""
    (?: (?<![^\s=:,;|(\[{<])"(?![A-Z]+[ ])[^"]*"
      | (?<![^\s=:,;|(\[{<])(?:'[^']*'|`[^`]*`)(?!\w)
      | [^\s=:,;|：，；]
    )+ [=:,;|：，；]*\s*
    | [=:,;|：，；]+\s*
    | \s+
    """,
    re.VERBOSE,
)

# `key=` with nothing after it has an empty value.
_EMPTY = re.compile(r"(?<=\w)=(?=[\s,;|)\]}]|$)")

# A value said once more in brackets (an address and its name, a size in larger units), or the brackets left empty
# because the name is not known.
_ASIDE = re.compile(r"<\*> [(\[](?:[^\s()\[\]]*[\d.<_][^\s()\[\]]*)?[)\]]")

# Names spelled with a number (eth0, eth1) are compared without it, and shown with it if all lines agree.
_INDEX = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]+)\d{1,3}([A-Za-z]*)(?![A-Za-z0-9])")
_DIGIT = re.compile(r"\d")

# Spaces between a bracket and the number in it are layout: [  12.5] and [112.5].
_PADDING = re.compile(r"([(\[{]) +(?=<\*>)")


def _cut(line: str) -> Pieces:
    return tuple(_PIECE.findall(line))


def _comparable(line: str, pieces: Pieces) -> Pieces:
    """Return the pieces by which a line is compared: lists of values of any length, and asides, are one value."""
    plain = _EMPTY.sub("=<*>", _INDEX.sub(r"\1<*>\2", line) if _DIGIT.search(line) else line)
    if VARIABLE in plain:
        plain = _ASIDE.sub(VARIABLE, _PADDING.sub(r"\1", plain))
    compared: list[str] = []
    for piece in pieces if plain == line else _cut(plain):
        if compared and VARIABLE in piece and piece.rstrip(" ,;|") == compared[-1].rstrip(" ,;|"):
            compared.pop()
        compared.append(piece)
    return tuple(compared) if len(compared) <= MAX_PIECES else (*compared[:MAX_PIECES], VARIABLE)


def _split(rows: list[Pieces], kind: Callable[[str], str]) -> Iterator[list[Pieces]]:
    """Yield groups of rows (all of one length) that differ only where values stand.

    A group is split at a place where pieces differ that tell events apart, of those at the one with the fewest pieces.
    When all places that differ hold values, the rows are of one template if at least half of their pieces of text
    agree; else they have too little in common, and are split where values are least sure and fewest.
    """
    pending = [(rows, list(range(len(rows[0]))), 0)]
    while pending:
        group, places, agreed = pending.pop()
        choices: list[tuple[int, int, int]] = []
        unread = iter(places if len(group) > 1 else ())
        for place in unread:
            pieces = {row[place] for row in group}
            if len(pieces) > 1:
                choices.append((_value_like(pieces, place, kind), len(pieces), place))
                if choices[-1][:2] == (0, 2):  # nothing comes before it
                    break
            elif kind(*pieces) != "value":
                agreed += 1
        values, _, place = min(choices, default=(True, 0, 0))
        if values and agreed >= len(choices):
            yield group
            continue
        branches: defaultdict[str, list[Pieces]] = defaultdict(list)
        for row in group:
            branches[row[place]].append(row)
        differing = [*(place for *_, place in choices), *unread]
        pending.extend((branch, differing, agreed) for branch in branches.values())


def _value_like(pieces: set[str], place: int, kind: Callable[[str], str]) -> int:
    """Return 2 when the different pieces in one place are names, 1 when they are so many that they are values, else 0.

    Two names suffice, if they are half of the pieces, for prose does not contain names. Words need more: opened and
    closed, true and false are two events. The first piece of a line, labels before `=` or `:` and words in capitals
    (GET, FAILED, states) are written by programmers and seldom vary, so they need most. Hundreds are data, whatever
    they look like.
    """
    count = len(pieces)
    if count >= _CERTAIN:
        return 2
    kinds = [kind(piece) for piece in pieces]
    names = kinds.count("name") + kinds.count("value")
    if names * 2 >= count and names >= (_NAMES if place else _WORDS):
        return 2
    fixed = not place or kinds.count("fixed") * 2 >= count
    return 1 if count >= (_FIXED if fixed else _WORDS) else 0


_OUTER = " .,;:=|()[]{}<>\"'`!?：，；"
_NAME = re.compile(r"[\d./\\_@$*~]")
_QUOTES = "\"'`"
_NOTHING = frozenset({"null", "nil", "none", "n/a"})


def _kind(piece: str) -> str:
    """Return what a piece looks like: `value` (masked, or no text), `name`, `fixed` (label or capitals) or `word`."""
    text = piece.rstrip()
    if text.isalpha() and not text.isupper():
        return "word"
    text = text.replace(VARIABLE, "").strip(_OUTER + "-/+@#%")
    if not text:
        return "value"
    label = piece.rstrip().endswith((":", "=")) and VARIABLE not in piece
    if label or (text.isupper() and text.replace("_", "").isalpha() and len(text) > 1):
        return "fixed"
    if piece[0] in _QUOTES and text.isalpha() and VARIABLE not in piece:  # as JSON has its words, too
        return "word"
    if VARIABLE in piece or piece[0] in _QUOTES or _NAME.search(text) or text.lower() in _NOTHING:
        return "name"
    return "word"


_PART = re.compile(r"<\*>|[^\W\d_]+|\d+|.", re.DOTALL)


def _template(group: list[Pieces], members: list[Pieces]) -> str:
    """Write what the lines of a group share, from the lines as they are if they are all as long, else as compared."""
    lengths = {len(pieces) for pieces in members}
    rows = members if len(lengths) == 1 and max(lengths) <= MAX_PIECES else group
    if len(rows) == 1:
        return "".join(rows[0])
    return join_values("".join(map(_shared, zip(*rows, strict=True))))


def _shared(column: Iterable[str]) -> str:
    """Return the words that all pieces begin and end with, and `<*>` between."""
    first, *others = set(column)
    if not others:
        return first
    lead = tail = _PART.findall(first)
    shortest = len(lead)
    for other in others:
        parts = _PART.findall(other)
        shortest = min(shortest, len(parts))
        lead = _agreeing(lead, parts)
        tail = _agreeing(tail[::-1], parts[::-1])[::-1]
    tail = tail[max(0, len(lead) + len(tail) - shortest) :]
    if tail and tail[0].isdecimal():  # half a name: alt0 and scip0 do not share a 0
        tail = tail[1:]
    return "".join([*lead, VARIABLE, *tail])


def _agreeing(one: list[str], other: list[str]) -> list[str]:
    """Return the parts that both lists begin with."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return [part for part, _ in pairs]
