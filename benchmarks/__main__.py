"""Ingest, end to end, beside a bare COPY of the same rows in the same run: `python -m benchmarks --help`."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import rsyslog, sustained
from benchmarks.daemon import Server, postgres
from benchmarks.measure import machine
from benchmarks.report import ingest_table, judged, spread
from benchmarks.scenarios import SYSLOG, Result, Scenario, bare_copy, measure, scenarios
from benchmarks.workload import CORPUS, CYCLE, Row, rows

BARE = "bare COPY"
#: rsyslog is slow: a part of the records is enough.
RSYSLOG_PART = 0.3
RSYSLOG_REACH, RSYSLOG_AIM = 5.0, 8.0


def main() -> None:
    options = _options()
    made = rows(options.records)
    chosen = [each for each in scenarios(options.connections) if not options.only or options.only in each.name]
    with tempfile.TemporaryDirectory() as folder, postgres(options.postgres) as server:
        print(f"{machine(asyncio.run(server.version()))}\n")
        with_rsyslog = _with_rsyslog(options.only)
        if chosen or with_rsyslog:
            results = _ingest(server, Path(folder), made, chosen, options.runs, with_rsyslog)
            size = sum(len(row.as_json()) for row in made) / len(made)
            source = "real lines" if CORPUS.is_dir() else "generated lines"
            print(f"{len(made):,} records of {source}, {size:.0f} bytes of JSON each; medians of {options.runs} runs,")
            print("ratios to the bare COPY right before and after; CPU in seconds per million records.\n")
            print(ingest_table(results, {each.name: each.goal for each in chosen}) + "\n")
            _against_rsyslog(results)
        if options.seconds and (not options.only or options.only in sustained.NAME):
            cycle = min(CYCLE, options.records)
            print(sustained.report(sustained.measure(server, options.seconds, cycle, options.patience)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--records", type=int, default=200_000, help="records of one run")
    parser.add_argument("--runs", type=int, default=3, help="runs of each scenario; medians are shown")
    parser.add_argument("--only", default="", help="scenarios whose name has this text")
    parser.add_argument("--connections", type=int, default=4, help="connections of HTTP with 1,000 records a request")
    parser.add_argument("--seconds", type=float, default=60, help="how long the sustained load lasts; 0 for none")
    parser.add_argument("--patience", type=float, default=60, help="seconds without any packing, then it is given up")
    parser.add_argument("--postgres", metavar="URL", help="a server of yours; its CPU time is not known then")
    return parser.parse_args()


def _with_rsyslog(only: str) -> bool:
    if only not in rsyslog.NAME:
        return False
    if missing := rsyslog.absent():
        print(f"skipped: {rsyslog.NAME}: {missing}\n")
    return not missing


def _ingest(
    server: Server, folder: Path, made: Sequence[Row], chosen: Sequence[Scenario], runs: int, with_rsyslog: bool
) -> dict[str, list[Result]]:
    """Run all scenarios so many times, each between two bare COPYs, whose mean it is compared with."""
    copy = folder / "bare"
    copy.write_bytes(b"\n".join(map(Row.as_copy, made)) + b"\n")
    names = [BARE, *(each.name for each in chosen), *([rsyslog.NAME] if with_rsyslog else [])]
    results: dict[str, list[Result]] = {name: [] for name in names}
    for number in range(runs):
        results[BARE].append(before := asyncio.run(bare_copy(server, copy, len(made))))
        for name in names[1:]:
            if name == rsyslog.NAME:
                result = rsyslog.measure(server, folder / "sent", made[: _part(made, RSYSLOG_PART)])
            else:
                scenario = next(each for each in chosen if each.name == name)
                result = measure(server, scenario, folder / "sent", made[: _part(made, scenario.part)])
            results[BARE].append(after := asyncio.run(bare_copy(server, copy, len(made))))
            result.bare, before = (before.rate + after.rate) / 2, after
            results[name].append(result)
            print(f"run {number + 1}: {name}: {result.rate:,.0f}/s, {result.ratio:.2f}", file=sys.stderr)
    return results


def _part(made: Sequence[Row], part: float) -> int:
    return max(1, int(len(made) * part))


def _against_rsyslog(results: dict[str, list[Result]]) -> None:
    theirs, ours = results.get(rsyslog.NAME), results.get(SYSLOG.name)
    if theirs and ours:
        times = [one.ratio / other.ratio for one, other in zip(ours, theirs, strict=True)]
        said = [judged(sorted(times)[len(times) // 2], goal, f"{goal:.0f}") for goal in (RSYSLOG_REACH, RSYSLOG_AIM)]
        print(f"{SYSLOG.name}: {spread(times)} times {rsyslog.NAME}; reach {said[0]}, aim {said[1]}.\n")


if __name__ == "__main__":
    main()
