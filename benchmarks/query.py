"""Search over ten million records of 24 hours, through HTTP: `python -m benchmarks.query --help`."""

import argparse
import asyncio
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.daemon import Daemon, Server, daemon, postgres, start_history, value, wait_packed, what_it_sent
from benchmarks.measure import machine, percentile, table
from benchmarks.questions import Kind, Known, Question, kinds
from benchmarks.report import at_most
from benchmarks.sustained import disk_rows, disk_use
from benchmarks.workload import CYCLE, rows

DAY = 86_400.0
DATABASE = "bench_query"
STATE = "bench_query.json"
#: Seconds for all runs of one kind: one that is far too slow is asked less often.
LONGEST = 150
MIX_P95 = 500


@dataclass(slots=True)
class Times:
    """What the runs of one kind of question took, in milliseconds, and what was wrong."""

    took: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, took: float, wrong: str | None) -> None:
        self.took.append(took)
        if wrong:
            self.wrong.append(wrong)


class Client:
    """Asks over one connection that stays open."""

    def __init__(self, running: Daemon) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", running.ports["HTTP"], timeout=120)

    def ask(self, question: Question) -> tuple[float, str | None]:
        """Return the milliseconds until the whole answer was there, and what was wrong with it."""
        began = time.perf_counter()
        self._connection.request("GET", question.target, headers={"Accept": "application/json"})
        answer = self._connection.getresponse()
        body = answer.read()
        took = (time.perf_counter() - began) * 1000
        if answer.status != 200:
            return took, f"{answer.status}: {body[:200].decode(errors='replace')}"
        return took, question.check(json.loads(body))


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        folder = options.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="logagg-bench-", dir="/tmp"))
        )
        server = stack.enter_context(postgres(options.postgres, folder if options.keep else None))
        print(f"{machine(asyncio.run(server.version()))}\n")
        url, state = _history(server, folder / STATE, options)
        known = Known(rows(_cycle(options)), state["total"], state["start"], state["records"])
        with daemon(url, "TCP") as running:
            # What the daemon before left open is packed by this one.
            left = asyncio.run(wait_packed(url, options.patience))
            chosen = [each for each in kinds(known) if options.only in each.name]
            times = _quiet(running, chosen, options.runs)
            print(f"{known.total:,} records, {state['records']:,} of them over 24 hours; {options.runs} runs, warm;")
            print(f"milliseconds by one HTTP client. Batches that are not packed: {left}.\n")
            print(_table(chosen, times) + "\n")
            print(f"Peak memory of the daemon: {running.peak():.0f} MB.\n")
            print(table(("", "measured", "reach", "aim"), disk_rows(asyncio.run(disk_use(url)))) + "\n")
            if options.seconds:
                known.growing = True
                light = [each for each in kinds(known) if options.only in each.name and not each.heavy]
                sent = _busy(running, light, known, options)
                (folder / STATE).write_text(json.dumps(state | {"total": known.total + sent}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.query", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000, help="records over 24 hours")
    parser.add_argument("--runs", type=int, default=20, help="how often each kind of question is asked")
    parser.add_argument("--only", default="", help="kinds of questions whose name has this text")
    parser.add_argument("--seconds", type=float, default=30, help="how long the mix is asked during ingest; 0 for not")
    parser.add_argument("--rate", type=int, default=10_000, help="records a second of that ingest")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the database there, and use it the next time")
    parser.add_argument("--patience", type=float, default=120, help="seconds without any packing, then it is given up")
    parser.add_argument("--postgres", metavar="URL", help="a server of yours instead of the embedded one")
    return parser.parse_args()


def kept(server: Server, folder: Path) -> tuple[Known, str]:
    """Return what an earlier run has kept in a folder, and the address of its database."""
    state = json.loads((folder / STATE).read_text())
    known = Known(rows(min(CYCLE, state["records"])), state["total"], state["start"], state["records"])
    return known, server.database(DATABASE)


def _cycle(options: argparse.Namespace) -> int:
    return min(CYCLE, int(options.records))


def _history(server: Server, file: Path, options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """Return the database and what is in it: as it was kept, or filled now."""
    if file.exists():
        state: dict[str, Any] = json.loads(file.read_text())
        url = server.database(DATABASE)
        there = asyncio.run(value(url, "select coalesce(sum(count), 0)::bigint from batches"))
        if there == state["total"] and options.records == state["records"]:
            return url, state
        _say(f"{file} tells of {state['total']:,} records, there are {there:,}, asked for {options.records:,}")
    file.unlink(missing_ok=True)
    url = asyncio.run(server.fresh_database(DATABASE))
    state = {"records": options.records, "total": options.records, "start": time.time() - DAY}
    with daemon(url, "TCP") as running:
        given = {"start": state["start"], "step": DAY / options.records, "cycle": _cycle(options)}
        began = time.perf_counter()
        with start_history(running, records=options.records, **given) as sender:
            sent = what_it_sent(sender)
            stored, until = running.wait_stored(sent["records"])
        if stored != options.records:
            raise SystemExit(f"sent {sent['records']:,} records, stored {stored:,}")
        took = until - sent["began"]
        _say(f"stored {stored:,} records in {took:.0f} s: {stored / took:,.0f}/s")
        left = asyncio.run(wait_packed(url, options.patience))
        _say(f"packed all but {left} batches {time.perf_counter() - began - took:.0f} s later; {running.peak():.0f} MB")
    file.write_text(json.dumps(state))
    return url, state


def _quiet(running: Daemon, chosen: Sequence[Kind], runs: int) -> dict[str, Times]:
    """Ask kind after kind, each once for nothing and then so many times."""
    client, results = Client(running), {}
    for kind in chosen:
        times = results[kind.name] = Times()
        client.ask(kind.ask(runs))
        began = time.perf_counter()
        for number in range(runs):
            times.add(*client.ask(kind.ask(number)))
            if time.perf_counter() - began > LONGEST:
                break
        _say(f"{kind.name}: {percentile(times.took, 0.5):,.1f} / {percentile(times.took, 0.95):,.1f} ms")
    return results


def _busy(running: Daemon, light: Sequence[Kind], known: Known, options: argparse.Namespace) -> int:
    """Ask a mix while records come in, and print how it went; return how many came in."""
    results, before = {kind.name: Times() for kind in light}, running.stored()
    given = {"rate": options.rate, "step": 1 / options.rate, "cycle": len(known.rows)}
    with start_history(running, first=known.total, seconds=options.seconds, **given) as sender:
        while running.stored() == before:
            if sender.poll() is not None:
                raise SystemExit(f"the sender ended with {sender.returncode}")
            time.sleep(0.05)
        client, number = Client(running), 0
        while sender.poll() is None:
            for kind in light:
                results[kind.name].add(*client.ask(kind.ask(number)))
            number += 1
        sent = what_it_sent(sender)
        stored = running.wait_stored(before + sent["records"])[0] - before
    everything = [each for times in results.values() for each in times.took]
    p95 = percentile(everything, 0.95)
    rate, p50 = sent["records"] / sent["seconds"], percentile(everything, 0.5)
    print(f"The mix of these, while {rate:,.0f} records/s came in: {len(everything)} questions,")
    print(f"p50 {p50:.1f} ms, p95 {p95:.1f} ms; reach {at_most(p95, MIX_P95, f'{MIX_P95} ms')}.")
    print(f"Of {sent['records']:,} records {stored:,} were stored; peak memory {running.peak():.0f} MB.\n")
    print(_table(light, results))
    return int(sent["records"])


def _table(chosen: Iterable[Kind], results: dict[str, Times]) -> str:
    head = ("query", "p50 ms", "p95 ms", "VictoriaLogs p50 / p95", "reach (p95)", "aim (p95)", "right answers")
    return table(head, [_row(kind, results[kind.name]) for kind in chosen])


def _row(kind: Kind, times: Times) -> list[str]:
    p95 = percentile(times.took, 0.95)
    right = f"{len(times.took) - len(times.wrong)} of {len(times.took)}"
    return [
        kind.name,
        f"{percentile(times.took, 0.5):,.1f}",
        f"{p95:,.1f}",
        f"{kind.other[0]:,.0f} / {kind.other[1]:,.0f}",
        at_most(p95, kind.reach, f"{kind.reach:,.0f}"),
        at_most(p95, kind.aim, f"{kind.aim:,.0f}"),
        right + (f": {times.wrong[0]}" if times.wrong else ""),
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
