"""What a record is: the one type that the rooms hand to each other.

A decoder turns frames into `Decoded`: records, and rejects for what can never become one. Nothing else comes out of it;
it raises nothing, whatever the bytes.
"""

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from logagg.protocols.columns import Columnar

#: Level names by syslog severity, RFC 5424 section 6.2.1: 0 is the most severe.
LEVELS = ("EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG")

#: The attribute that says what was unusual about a record: `not syslog`, `no message`, `timestamp out of range` ...
NOTE = "logagg_note"


class Record(NamedTuple):
    """One log record, in the order of the columns of the table `logs` (after `id` and `batch`).

    Text holds no NUL and no surrogate: decoders replace them by U+FFFD and keep the bytes in `raw`.
    """

    #: When it happened: aware, UTC, microseconds.
    timestamp: datetime
    #: When the listener read it: aware, UTC, microseconds.
    received_at: datetime
    #: Syslog severity, 0 to 7; the index of its name in `LEVELS`.
    severity: int
    #: Syslog facility, 0 to 23; None where the sender has no such thing.
    facility: int | None
    #: Such as production or staging.
    environment: str | None
    #: The machine that the record tells of.
    host: str | None
    #: The program or service that the record tells of.
    service: str | None
    #: Where it came from: what the sender calls its source, else the sender's address.
    source: str | None
    #: The text. May be empty.
    message: str
    #: All other fields, as the text of one JSON object; None for none.
    attributes: str | None
    trace_id: str | None
    span_id: str | None
    #: The bytes as they came, only when something had to be replaced.
    raw: bytes | None


class Reject(NamedTuple):
    """Bytes that can never become a record. They go to the table `quarantine`."""

    #: When the listener read it: aware, UTC.
    received_at: datetime
    #: The listener: `tcp`, `syslog-udp` ...
    transport: str
    #: The sender's address.
    source: str
    #: One sentence with the numbers in it: "frame of 70000 bytes, at most 65536".
    reason: str
    raw: bytes


class Origin(NamedTuple):
    """What a listener knows of the frames that the frames do not say."""

    #: When they were read: aware, UTC. Decoders have no clock of their own.
    now: datetime
    #: The listener: `tcp`, `syslog-udp`, `http` ...
    transport: str
    #: The sender's address, without port.
    peer: str
    #: The environment of records that name none.
    environment: str | None = None


class Decoded(NamedTuple):
    """What a decoder made of some frames."""

    records: list[Record]
    rejects: list[Reject]


class Decoder(Protocol):
    """Frames in, records out; one call for as many frames as a read gave."""

    def __call__(self, frames: list[bytes], origin: Origin) -> "Decoded | Columnar":
        """Decode whole frames, none of which is empty."""
