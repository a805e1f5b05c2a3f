"""Records of batches as columns: the polars frames that are written, kept, packed, and evaluated."""

from collections.abc import Sequence
from typing import Final

import polars as pl

from logagg.protocols.columns import COLUMNS, TIME

__all__ = ["FULL", "LAST_PLACE", "PLACE_BITS", "SCHEMA", "TIME", "empty"]

#: An id is the batch's number and the place in the batch.
PLACE_BITS: Final = 17
LAST_PLACE: Final = (1 << PLACE_BITS) - 1

#: Columns and types of a frame of stored records. `attributes` is the text of a JSON object, or null.
FULL: Final[dict[str, pl.DataType]] = {"id": pl.Int64(), **COLUMNS}

#: The same for queries, which never look at `raw`.
SCHEMA: Final[dict[str, pl.DataType]] = {name: kind for name, kind in FULL.items() if name != "raw"}


def empty(columns: Sequence[str]) -> pl.DataFrame:
    """Return a frame of no records."""
    return pl.DataFrame(schema={name: FULL[name] for name in columns})
