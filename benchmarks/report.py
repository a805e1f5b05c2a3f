"""The table of ingest: the medians of several runs, beside what was to be reached."""

from collections.abc import Mapping, Sequence

from benchmarks.measure import median, percentile, table
from benchmarks.scenarios import Goal, Result

HEAD = (
    "", "records/s", "of bare COPY", "reach", "aim", "ack p50 / p95 / p99 ms", "lost, failed", "daemon CPU",
    "PostgreSQL CPU", "peak MB",
)  # fmt: skip
#: A sender at a set rate counts as being there when it is so near.
NEAR = 0.97


def ingest_table(results: Mapping[str, Sequence[Result]], goals: Mapping[str, Goal | None]) -> str:
    """Return the table; `results` has the runs of each scenario by its name."""
    return table(HEAD, [_row(name, runs, goals.get(name)) for name, runs in results.items() if runs])


def _row(name: str, runs: Sequence[Result], goal: Goal | None) -> list[str]:
    latencies = [each for run in runs for each in run.latencies]
    acks = [f"{percentile(latencies, part):.1f}" for part in (0.5, 0.95, 0.99)]
    lost, failed = sum(run.lost for run in runs), sum(run.failures for run in runs)
    sent = median([run.sent_rate for run in runs])
    return [
        name,
        f"{median([run.rate for run in runs]):,.0f}" + (f" (sent {sent:,.0f})" if sent else ""),
        spread([run.ratio for run in runs]),
        verdict(goal, runs, goal.reach) if goal else "",
        verdict(goal, runs, goal.aim) if goal else "",
        " / ".join(acks) if latencies else "",
        f"{lost:,}, {failed:,}" + (f" of {sum(run.records for run in runs):,}" if lost or failed else ""),
        f"{median([run.daemon_cpu / run.records * 1e6 for run in runs]):.1f}",
        f"{median([run.postgres_cpu / run.records * 1e6 for run in runs]):.1f}",
        f"{max(run.peak for run in runs):.0f}" if any(run.peak for run in runs) else "",
    ]


def spread(ratios: Sequence[float]) -> str:
    """Return the median of ratios, each of one run, and the least and the greatest."""
    if not any(ratios):
        return ""
    ends = f" ({min(ratios):.2f}-{max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"{median(ratios):.2f}{ends}"


def verdict(goal: Goal, runs: Sequence[Result], wanted: float) -> str:
    """Say whether a goal was met by the median of the runs."""
    if goal.measure == "ratio":
        return judged(median([run.ratio for run in runs]), wanted, f"{wanted:.2f}")
    if goal.measure == "lossless":
        near = min(run.sent_rate for run in runs)
        kept = sum(run.lost for run in runs) == 0
        return judged(near if kept else 0.0, wanted * NEAR, f"{wanted:,.0f}/s")
    said = judged(median([run.rate for run in runs]), wanted, f"{wanted:,.0f}/s")
    p95 = percentile([each for run in runs for each in run.latencies], 0.95)
    slow = goal.p95 is not None and p95 >= goal.p95
    return f"{wanted:,.0f}/s: p95 above {goal.p95} ms" if slow else said


def judged(value: float, wanted: float, shown: str) -> str:
    """Say whether a value is at least as high as wanted."""
    return f"{shown} met" if value >= wanted else f"{shown} missed by {1 - value / wanted:.0%}"


def at_most(value: float, wanted: float, shown: str) -> str:
    """Say whether a value is no higher than wanted."""
    return f"{shown} met" if value <= wanted else f"{shown} missed, {value / wanted:.2f} times"
