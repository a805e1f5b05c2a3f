"""What one body may bring, whatever its length: a record of two bytes takes several hundred once it is read.

A sender that is told 413 sends less at once, or gives up; nothing of such a body is stored.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

#: Records of one body.
MOST_RECORDS: Final = 1_000_000
#: Objects, arrays and messages of one body, each within another.
MOST_PARTS: Final = 4_000_000
#: How such parts begin: in JSON, and in protobuf the fields that hold log records, entries, and values of attributes.
_PARTS: Final = (b"{", b"[", b"\x12")

_Items = TypeVar("_Items", bound=Sequence[object])


class TooLarge(Exception):
    """A body is more than a limit: of bytes once decompressed, or of what it brings."""


def check_parts(body: bytes) -> None:
    """Raise TooLarge for a body that may have too many parts; looks at its bytes only, those in texts too."""
    if len(body) > MOST_PARTS and (parts := sum(map(body.count, _PARTS))) > MOST_PARTS:
        raise TooLarge(f"body of {len(body)} bytes with {parts} objects and arrays, at most {MOST_PARTS}")


def few_enough(items: _Items) -> _Items:
    """Return what becomes a record each; raises TooLarge for too many."""
    if len(items) > MOST_RECORDS:
        raise TooLarge(f"{len(items)} records in one body, at most {MOST_RECORDS}")
    return items
