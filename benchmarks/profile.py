"""Where the daemon's time goes, by py-spy (PyPI): `python -m benchmarks.profile --help`."""

import argparse
import asyncio
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.daemon import Daemon, daemon, postgres, start_history, wait_packed, what_it_sent
from benchmarks.measure import table
from benchmarks.query import Client, kept
from benchmarks.questions import kinds
from benchmarks.scenarios import drive, scenarios
from benchmarks.sustained import NAME, STEP
from benchmarks.workload import rows

#: Samples a second.
RATE = 250
#: A frame as py-spy writes it: `name (path:line)`.
_FRAME = re.compile(r"(?P<name>.+) \((?P<file>[^()]+?)(?::\d+)?\)")
#: Folders of our own code, at the end of a path.
_OURS = re.compile(r"(?:^|/)((?:protocols|sinks|query|collector|cli)/\w+\.py)$")
_THREAD = re.compile(r"thread \((?:0x)?\w+\)(?:: )?(?P<name>.*)")


#: A worker without work, which py-spy now and then takes for busy.
_WAITS = "_worker"
#: Where the event loop is, which is no Python: reading and writing, or waiting for either.
_LOOP = ("Runner.run", "run")


class Sample(NamedTuple):
    """A stack that was seen so many times: the thread's name, and frames with the outermost first."""

    thread: str
    frames: list[tuple[str, str]]
    seen: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("what", help=f"part of the name of a scenario of ingest, {NAME!r}, or of a kind of question")
    parser.add_argument("--records", type=int, default=400_000, help="records of a scenario")
    parser.add_argument(
        "--seconds", type=float, default=20, help=f"of {NAME!r}, and of a question asked again and again"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="where benchmarks.query kept its database; for questions"
    )
    parser.add_argument("--native", action="store_true", help="look into libraries too; slower")
    options = parser.parse_args()
    program = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if program is None:
        raise SystemExit("there is no py-spy; `pip install py-spy` brings it")
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder, "stacks")
        command = [
            program,
            "record",
            "--rate",
            str(RATE),
            "--format",
            "raw",
            "--threads",
            "--full-filenames",
            "--output",
            str(stacks),
        ]
        command += ["--native"] if options.native else []
        title, seconds = (
            _question(command, options) if options.keep else _ingest(command, Path(folder, "sent"), options)
        )
        _print(title, seconds, list(samples(stacks.read_text())))


def _ingest(command: list[str], path: Path, options: argparse.Namespace) -> tuple[str, float]:
    """Profile a scenario; return its name and the daemon's CPU seconds."""
    scenario = next((each for each in scenarios(4) if options.what in each.name), None)
    if scenario is None and options.what not in NAME:
        raise SystemExit(f"no scenario is called {options.what}; for a question, say where its database is: --keep")
    with postgres() as server:
        url = asyncio.run(server.fresh_database("bench_logagg"))
        with daemon(url, scenario.listener if scenario else "TCP") as running:
            cpu = running.seconds()
            if scenario is None:
                with _spied(command, running), start_history(running, seconds=options.seconds, step=STEP) as sender:
                    running.wait_stored(what_it_sent(sender)["records"])
                    asyncio.run(wait_packed(url, 30))
                return NAME, running.seconds() - cpu
            made = rows(int(options.records * scenario.part))
            path.write_bytes(scenario.make(made))
            with _spied(command, running):
                result = drive(server, running, scenario, path, len(made))
            return f"{scenario.name}, {result.rate:,.0f} records/s", result.daemon_cpu


def _question(command: list[str], options: argparse.Namespace) -> tuple[str, float]:
    """Profile a question that is asked again and again."""
    with postgres(folder=options.keep) as server:
        known, url = kept(server, options.keep)
        kind = next((each for each in kinds(known) if options.what in each.name), None)
        if kind is None:
            raise SystemExit(f"no question is called {options.what}: {', '.join(each.name for each in kinds(known))}")
        with daemon(url) as running:
            asyncio.run(wait_packed(url, 30))
            client = Client(running)
            times: list[float] = []
            client.ask(kind.ask(0))
            cpu = running.seconds()
            with _spied(command, running):
                end = time.monotonic() + options.seconds
                while time.monotonic() < end:
                    times.append(client.ask(kind.ask(len(times)))[0])
            title = f"{kind.name}, asked {len(times)} times, {sum(times) / len(times):.1f} ms each"
            return title, running.seconds() - cpu


@contextmanager
def _spied(command: list[str], running: Daemon) -> Iterator[None]:
    """Let py-spy look at the daemon."""
    spy = subprocess.Popen([*command, "--pid", str(running.pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)  # until it has found its way around
    if spy.poll() is not None:
        raise SystemExit(f"py-spy ended with {spy.returncode}; it needs the right to trace the daemon (root, ptrace)")
    try:
        yield
    finally:
        spy.send_signal(signal.SIGINT)
        spy.wait(120)


def samples(text: str) -> Iterator[Sample]:
    """Yield what py-spy saw, in its raw format: frames with `;` between them, and a count."""
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, frames = "", []
        for part in stack.split(";"):
            if found := _THREAD.fullmatch(part):
                thread = found["name"]
            elif found := _FRAME.fullmatch(part):
                frames.append((found["name"], found["file"]))
        if frames and count.isdigit() and frames[-1][0] != _WAITS:
            yield Sample(thread, frames, int(count))


def own(sample: Sample) -> str:
    """Return the innermost function of ours that was at work, else the innermost of another's."""
    if sample.frames[-1][0] in _LOOP:
        return "(the event loop, working or waiting)"
    for name, file in reversed(sample.frames):
        if found := _OURS.search(file):
            return f"{found[1]} {name}"
    name, file = sample.frames[-1]
    return f"{Path(file).name} {name}"


def _print(title: str, seconds: float, seen: list[Sample]) -> None:
    total = sum(each.seen for each in seen)
    if not total:
        raise SystemExit("py-spy saw nothing")
    threads, files, functions, leaves = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for each in seen:
        name = own(each)
        threads[re.sub(r"[_-]?\d+$", "", each.thread)] += each.seen
        files[name.rpartition(" ")[0] if name[0] != "(" else name] += each.seen
        functions[name] += each.seen
        leaf, file = each.frames[-1]
        leaves[f"{Path(file).name} {leaf}"] += each.seen
    print(f"{title}: {seconds:.1f} s of CPU, {total / RATE:.1f} s seen by py-spy in threads of Python;")
    print("the rest is in threads of libraries, such as polars' own.\n")
    for head, counts, number in (
        ("thread", threads, 8), ("file", files, 12), ("function of ours, with what it calls", functions, 20),
        ("innermost function", leaves, 15),
    ):  # fmt: skip
        print(table((head, "of the time"), [[key, f"{n / total:.0%}"] for key, n in counts.most_common(number)]) + "\n")


if __name__ == "__main__":
    main()
