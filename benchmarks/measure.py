"""What a process costs, from /proc (Linux only, like the daemon's service), and how figures are summed up and shown."""

import math
import os
import platform
import statistics
from collections.abc import Sequence
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


def children(pid: int) -> list[int]:
    """Return the living children of a process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def tree_seconds(pid: int) -> float:
    """CPU seconds of a process and of its children, the living and those that ended: PostgreSQL as a whole."""
    total = sum(usage(pid))
    for child in children(pid):
        try:
            total += sum(usage(child))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def peak_megabytes(pid: int) -> float:
    """Return the largest resident memory of a process so far, and of its living children, if it has any."""
    return sum(_peak(each) for each in [pid, *children(pid)])


def _peak(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def cpu_ticks() -> tuple[int, int]:
    """Return the ticks of all cores so far, and those of them that other machines on the same host took."""
    ticks = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(ticks), ticks[7]


def percentile(values: Sequence[float], part: float) -> float:
    """Return the least value that so many are not above (nearest rank); 0.0 of none."""
    return sorted(values)[max(0, math.ceil(len(values) * part) - 1)] if values else 0.0


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def machine(postgres_version: str) -> str:
    """Say in a sentence what was measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores of {models[0] if models else platform.machine()}, {memory:.0f} GB of memory; "
        f"Python {platform.python_version()}, PostgreSQL {postgres_version}."
    )
