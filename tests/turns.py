"""What comes out of a session: for the tests of protocols over streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from logagg.protocols.columns import Columnar, to_records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from logagg.protocols.record import Record, Reject
    from logagg.protocols.session import Turn


class Heard(NamedTuple):
    """What came out of a session."""

    turns: list[Turn]
    records: list[Record]
    rejects: list[Reject]
    answer: bytes

    @property
    def messages(self) -> list[str]:
        return [record.message for record in self.records]

    @property
    def reasons(self) -> list[str]:
        return [reject.reason for reject in self.rejects]


def heard(turns: list[Turn]) -> Heard:
    return Heard(turns, records_of(turns), rejects_of(turns), b"".join(turn.answer for turn in turns))


def records_of(turns: Iterable[Turn]) -> list[Record]:
    found: list[Record] = []
    for turn in turns:
        decoded = turn.decoded
        found += to_records(decoded.records) if isinstance(decoded, Columnar) else decoded.records
    return found


def rejects_of(turns: Iterable[Turn]) -> list[Reject]:
    return [reject for turn in turns for reject in turn.decoded.rejects]


def texts_of(turns: list[Turn]) -> list[str]:
    assert rejects_of(turns) == []
    return [record.message for record in records_of(turns)]
