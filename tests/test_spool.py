"""A frame in a file without a name."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from logagg.sinks.frames import FULL
from logagg.sinks.spool import Spool, read

FRAME = pl.DataFrame(
    {"id": [1, 2, 3], "message": ["a", "ß" * 1000, ""], "raw": [None, b"\0\xff", b""]},
    schema={name: FULL[name] for name in ("id", "message", "raw")},
)


def opened(spool: Spool) -> str:
    return str(Path(f"/proc/self/fd/{spool.fileno()}").readlink())


def test_a_frame_comes_back_whole_and_by_columns(tmp_path: Path) -> None:
    spool = Spool(FRAME, tmp_path)
    for _ in range(2):
        assert read(spool.fileno()).equals(FRAME)
        assert spool.read(["raw", "id"]).equals(FRAME.select("raw", "id"))


def test_the_file_has_no_name_and_goes_with_the_last_reference(tmp_path: Path) -> None:
    spool = Spool(FRAME, tmp_path)
    fd, place = spool.fileno(), opened(spool)
    assert place.startswith(str(tmp_path))
    assert not list(tmp_path.iterdir())
    del spool
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Spool(FRAME, tmp_path / "none")


#: Python ignores SIGXFSZ: a write beyond the limit is an error, as on a full disk.
LIMITED = """
import resource, sys
from pathlib import Path
import polars as pl
from logagg.sinks.spool import Spool
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    Spool(pl.DataFrame({"id": range(10_000)}), Path(sys.argv[1]))
except (OSError, pl.exceptions.PolarsError):
    sys.exit(7)
"""


def test_a_disk_that_is_full_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], timeout=60, check=False)
    assert done.returncode == 7
