"""What a process costs, from /proc: CPU seconds and peak memory. Linux only, like the daemon's service."""

import os
from pathlib import Path
from typing import NamedTuple

TICK = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """CPU seconds of a process, and of the children that it has waited for."""

    own: float
    reaped: float


def usage(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, reaped = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
    return Usage(own / TICK, reaped / TICK)


def tree_seconds(pid: int) -> float:
    """CPU seconds of a process and of its children, the living and those that ended: PostgreSQL as a whole."""
    total = sum(usage(pid))
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                total += sum(usage(int(entry.name)))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def peak_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0
