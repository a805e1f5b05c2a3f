"""The summaries of some batches as one table of arrays, so that a condition is evaluated once a distinct group."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

#: A minute in microseconds.
MINUTE = 60_000_000
#: Columns that a summary knows of a record besides its minute.
COLUMNS = ("environment", "service", "severity")
#: Rows of the tables that are kept, some 28 bytes each.
MAX_ROWS = 1_000_000

Integers = npt.NDArray[np.int64]
#: Numbers and versions of batches.
Versions = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Counts of records: one value of each array a row; those of a batch stand together."""

    #: Numbers of the batches whose summaries are in.
    batches: frozenset[int]
    batch: Integers
    #: Since 1970.
    minute: Integers
    #: Row of `groups`, which has each combination of values once: environment, service, severity.
    group: Integers
    count: Integers
    groups: pl.DataFrame

    @classmethod
    def of(cls, summaries: Mapping[int, pl.DataFrame]) -> "Table":
        """Join summaries, by batch number: `packing.SUMMARY`."""
        empty = pl.DataFrame(schema={name: pl.Int8 if name == "severity" else pl.String for name in COLUMNS})
        if not summaries:
            nothing = np.empty(0, dtype=np.int64)
            return cls(frozenset(), nothing, nothing, nothing, nothing, empty)
        joined = pl.concat(summaries.values())
        by_group = joined.select(COLUMNS).with_row_index("row").group_by(COLUMNS).agg("row")
        group = np.empty(joined.height, dtype=np.int64)
        group[by_group["row"].explode().to_numpy()] = np.repeat(
            np.arange(by_group.height), by_group["row"].list.len().to_numpy()
        )
        return cls(
            frozenset(summaries),
            np.repeat(list(summaries), [frame.height for frame in summaries.values()]),
            joined["minute"].to_numpy(),
            group,
            joined["count"].cast(pl.Int64).to_numpy(),
            by_group.select(COLUMNS),
        )

    def only(self, mask: npt.NDArray[np.bool_], batches: frozenset[int]) -> "Table":
        """Return some of the rows, those of some of the batches."""
        if mask.all():
            return self
        columns = {name: getattr(self, name)[mask] for name in ("batch", "minute", "group", "count")}
        return replace(self, batches=batches, **columns)

    def by_batch(self) -> dict[int, int]:
        """Return how many records each batch has, 0 for those without a row."""
        found = pl.DataFrame({"batch": self.batch, "count": self.count}).group_by("batch").agg(pl.col("count").sum())
        return dict.fromkeys(self.batches, 0) | dict(found.iter_rows())

    def by_columns(self, names: Mapping[str, str], step: int | None = None) -> pl.DataFrame:
        """Count by columns: new name -> column; and by `time`, with a step as in `by_time`."""
        found = self.groups.select(pl.col(column).alias(name) for name, column in names.items())
        if step is None:
            counts = np.bincount(self.group, self.count, self.groups.height).astype(np.int64)
            found = found.with_columns(pl.Series("count", counts)).filter(pl.col("count") > 0)
            return found.group_by(list(names)).agg(pl.col("count").sum())
        rows = pl.DataFrame({"group": self.group, "time": self.minute * MINUTE // step * step, "count": self.count})
        rows = rows.group_by("group", "time").agg(pl.col("count").sum())
        found = found.select(pl.all().gather(rows["group"])).with_columns(rows["time"], rows["count"])
        return found.group_by([*names, "time"]).agg(pl.col("count").sum())

    def by_time(self, step: int) -> pl.DataFrame:
        """Count by time, in whole `step`s of microseconds since 1970, and severity: start, severity, count."""
        start, severity = self.minute * MINUTE // step * step, self.groups["severity"].to_numpy()[self.group]
        found = pl.DataFrame({"start": start, "severity": severity, "count": self.count})
        return found.group_by("start", "severity").agg(pl.col("count").sum())


class Tables:
    """The tables that were made last, as long as they have `MAX_ROWS` together."""

    def __init__(self) -> None:
        self._tables: OrderedDict[Versions, Table] = OrderedDict()

    def get(self, batches: Versions) -> Table | None:
        """Return the table for these batches, if it was made before."""
        if batches in self._tables:
            self._tables.move_to_end(batches)
        return self._tables.get(batches)

    def put(self, batches: Versions, table: Table) -> None:
        """Keep a table; forget those that were not asked for the longest."""
        self._tables[batches] = table
        while sum(len(each.batch) for each in self._tables.values()) > MAX_ROWS:
            self._tables.popitem(last=False)
