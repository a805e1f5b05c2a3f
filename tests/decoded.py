"""What comes out of a decoder, whichever way it took: for the tests of protocols."""

import json
from typing import Any

from logagg.protocols.columns import Columnar, to_records
from logagg.protocols.record import Decoded, Record


def in_records(decoded: Decoded | Columnar) -> Decoded:
    return decoded if isinstance(decoded, Decoded) else Decoded(to_records(decoded.records), decoded.rejects)


def messages(decoded: Decoded | Columnar) -> list[str]:
    return [record.message for record in in_records(decoded).records]


def rest(record: Record) -> Any:
    return json.loads(record.attributes or "{}")
