"""What pydantic finds wrong with a setting, in plain words."""

from typing import Any, Final, get_args

from pydantic import ByteSize
from pydantic_core import ErrorDetails

_SIZE: Final = "expected a number of bytes or a size such as 64MiB"
_WORDS: Final = {
    "path_type": "expected a path",
    "string_type": "expected text",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    **dict.fromkeys(("byte_size", "byte_size_unit"), _SIZE),
    **dict.fromkeys(("dict_type", "model_type"), "expected a table"),
    "missing": "is missing",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}


def plain(error: ErrorDetails, kind: object = None) -> str:
    """Say what is wrong; `kind` is the type of what was read. What was given is not said: it may be a secret."""
    if error["type"] in _BOUNDS:
        name, words = _BOUNDS[error["type"]]
        return f"has to be {words} {_bound(error['ctx'][name], kind)}"
    if error["type"] == "literal_error":
        return f"expected {error['ctx']['expected']}"
    return _WORDS.get(error["type"]) or error["msg"].removeprefix("Value error, ")


def _bound(value: Any, kind: object) -> str:
    return format_size(value) if ByteSize in (kind, *get_args(kind)) else str(value)


def format_size(count: int) -> str:
    """Write a number of bytes in the largest unit that divides it."""
    for unit, bits in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count and count % (1 << bits) == 0:
            return f"{count >> bits}{unit}"
    return f"{count} bytes"
