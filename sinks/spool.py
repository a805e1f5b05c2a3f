"""Records that wait, out of memory: in a file without a name, which is gone with the last who has it open."""

import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import polars as pl


class Spool:
    """A frame in a file, in Arrow's IPC format. A daemon that is killed leaves nothing behind."""

    def __init__(self, frame: pl.DataFrame, folder: Path | None) -> None:
        """Write the frame to a file in `folder`, None for the system's. Raises OSError, or polars' errors."""
        with tempfile.TemporaryFile(dir=folder) as file:
            frame.write_ipc(file, compression="uncompressed")
            self._fd = os.dup(file.fileno())
        # Closed with the last reference, no sooner: who still reads must not find another file under this number.
        weakref.finalize(self, os.close, self._fd)

    def fileno(self) -> int:
        """Return the descriptor of the file: another process may be given it."""
        return self._fd

    def read(self, columns: Sequence[str]) -> pl.DataFrame:
        """Return columns of the frame. Blocks."""
        return read(self._fd, columns)


def read(fd: int, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Return columns, None for all, of the frame in the file behind a descriptor, wherever that stands in it."""
    frame = pl.read_ipc(f"/dev/fd/{fd}", columns=None if columns is None else list(columns))
    return frame if columns is None else frame.select(columns)
