"""How a question fails: it is wrong, or it ran into a limit. Both messages are written for the person who asked."""

#: Characters of the query shown on each side of the place of an error.
_SHOWN = 60
#: Bytes that an answer may take as columns; as Python's objects, and then as JSON, it takes some five times as much.
MAX_ANSWER = 64 << 20


class QueryError(Exception):
    """The question itself is wrong: its syntax, or an argument. The message says what was expected.

    For syntax, the message goes on with the line of the query and a caret under the place.
    """

    def __init__(self, problem: str, text: str | None = None, position: int = 0) -> None:
        #: The message without query and caret.
        self.problem = problem
        #: Where in the text, in characters from 0; None when the error is not one of syntax.
        self.position = None if text is None else position
        super().__init__(problem if text is None else f"{problem}\n{_pointed(text, position)}")


class QueryLimit(Exception):
    """The question was ended by a limit; the message says which, with its numbers."""


def refuse_large(size: int, what: str) -> None:
    """Raise QueryLimit when an answer of so many bytes is beyond the memory limit; `what` has them: "500 records"."""
    if size > MAX_ANSWER:
        raise QueryLimit(f"{what} take {size} bytes of memory, at most {MAX_ANSWER}; ask for fewer")


def _pointed(text: str, position: int) -> str:
    """Return the line of `text` that holds the position, and a caret under it; both indented by two."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    line = text[start : len(text) if end < 0 else end]
    at = position - start
    left = max(0, at - _SHOWN)
    shown = line[left : at + _SHOWN]
    before, after = "..." if left else "", "..." if at + _SHOWN < len(line) else ""
    printable = "".join(c if c.isprintable() else " " for c in shown)
    return f"  {before}{printable}{after}\n  {' ' * (len(before) + at - left)}^"
