"""`logagg doctor`: ask a running daemon whether it is well, and above all whether its books balance."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from logagg.cli.client import Client
from logagg.cli.options import examples, server_options
from logagg.cli.output import compact, counted
from logagg.cli.terminal import Failure, Screen, paint, visible, wants_colour

if TYPE_CHECKING:
    from http.client import HTTPResponse

Status = Literal["ok", "warning", "failed"]

#: Both sides of the books; what is in flight belongs to the right one.
IN = ("received", "replayed")
OUT = ("stored", "duplicate", "quarantined", "dropped", "journaled")
FLIGHT = "in flight"
#: Seconds after which maintenance should have run again, and a closed batch should be packed.
OVERDUE, UNPACKED = 600, 3600
#: Builds indexes for as long as it takes, and only where they are wanted.
_UNHURRIED = "gin"
_COLOURS = {"ok": "32", "warning": "33", "failed": "1;31"}


class Check(NamedTuple):
    """What was looked at, how it is, and the numbers behind that."""

    name: str
    status: Status
    said: str
    numbers: Mapping[str, float | str]


class Reading(NamedTuple):
    """The metrics at one moment: the daemon counts nothing while it writes them down."""

    samples: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
    #: The daemon's own clock, in Unix time.
    at: float

    def total(self, name: str) -> int:
        """Return the sum of a metric over its labels; 0 when it is not there."""
        return round(sum(value for (each, _), value in self.samples.items() if each == f"logagg_{name}"))

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return a metric by the values of labels."""
        found: dict[tuple[str, ...], float] = {}
        for (each, pairs), value in self.samples.items():
            if each == f"logagg_{name}":
                values = dict(pairs)
                key = tuple(values.get(label, "") for label in labels)
                found[key] = found.get(key, 0) + value
        return found

    def books(self) -> dict[str, dict[str, int]]:
        """Return what is counted of records, by transport."""
        books: dict[str, dict[str, int]] = {}
        for name in (*IN, *OUT, FLIGHT):
            metric = "records_in_flight" if name == FLIGHT else f"records_{name}_total"
            for (transport,), value in self.by(metric, "transport").items():
                books.setdefault(transport, dict.fromkeys((*IN, *OUT, FLIGHT), 0))[name] = round(value)
        return dict(sorted(books.items()))

    def missing(self) -> dict[str, int]:
        """Return what came in and is neither booked out nor in flight, by transport."""
        return {
            transport: sum(book[name] for name in IN) - sum(book[name] for name in (*OUT, FLIGHT))
            for transport, book in self.books().items()
        }


class _Daemon(Client):
    """What the doctor asks. Every method raises Failure when there is no answer, or one that logagg does not give."""

    def version(self) -> str:
        """Return the version of the daemon."""
        about = self.get("/metrics", {})
        if not isinstance(about, dict) or about.get("service") != "logagg":
            raise Failure(f"{self._url}/metrics answered as logagg does not; is it logagg?")
        return visible(str(about.get("version")))

    def trouble(self) -> str | None:
        """Return why the store cannot be reached; None when it can."""
        response, body = self._get("/readyz", {})
        if response.status != 503:
            self._json("/readyz", response, body)
            return None
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        reason = answer.get("reason") if isinstance(answer, dict) else None
        return visible(str(reason or "the daemon does not say why"))

    def reading(self) -> Reading:
        """Return the metrics."""
        response, body = self._request("GET", "/metrics", headers={"Accept": "text/plain"})
        if response.status != 200:
            raise self._refusal("/metrics", response, None)
        reading = Reading(_samples(body), _clock(response))
        if not any(name == "logagg_buffer_records" for name, _ in reading.samples):
            raise Failure(f"{self._url}/metrics are not the metrics of a logagg that this client knows")
        return reading


def _samples(body: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        families = list(text_string_to_metric_families(body.decode()))
        samples = [each for family in families for each in family.samples if each.name.startswith("logagg_")]
        found = {(each.name, tuple(sorted(each.labels.items()))): float(each.value) for each in samples}
        for value in found.values():
            round(value)  # raises for what is no number
    except (ValueError, OverflowError, IndexError, KeyError) as error:
        raise Failure(f"/metrics cannot be read: {visible(str(error))[:80]}; is it logagg?") from None
    return found


def _clock(response: "HTTPResponse") -> float:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(response.getheader("Date", "")).timestamp()
    except (ValueError, TypeError, IndexError):
        return time.time()


def books(now: Reading) -> Iterator[Check]:
    """Yield a check for each transport, and one of what waits."""
    missing = now.missing()
    for transport, book in now.books().items():
        difference = missing[transport]
        said = f"{_side(IN, book)} {'against' if difference else '='} {_side((*OUT, FLIGHT), book)}"
        yield Check(
            f"books of {transport}",
            "failed" if difference else "ok",
            f"{_judged(difference)}: {said}",
            {**book, "difference": difference},
        )
    if not missing:
        yield Check("books", "ok", "no record has come yet", {})
    waiting = now.total("buffer_records")
    wait = "waits" if waiting == 1 else "wait"
    yield Check("buffer", "ok", f"{_records(waiting)} {wait} for PostgreSQL", {"buffer": waiting})


def _judged(difference: int) -> str:
    if difference < 0:
        return f"{_records(-difference)} more booked than came"
    return f"a leak of {difference:,}: they came and are neither booked nor in flight" if difference else "balanced"


def _side(names: Iterable[str], book: Mapping[str, int]) -> str:
    """Write a side of the books, without what is zero."""
    return " + ".join(f"{name} {book[name]:,}" for name in names if book[name]) or "0"


def _records(count: float) -> str:
    return counted(count, "record")


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{max(seconds, 0):,.0f} s"


def losses(now: Reading) -> Iterator[Check]:
    """Yield what was given up, lost in the kernel and put aside, since the daemon was started."""
    yield _counted("dropped", _named(now, "records_dropped_total", "transport", "reason"), "no record was given up")
    lost, none = _named(now, "datagrams_lost_total", "transport"), "no datagram was lost for want of room"
    yield _counted("kernel", lost, f"{none} in the receive buffer", "datagrams lost since the start")
    yield _counted("quarantine", _named(now, "records_quarantined_total", "transport"), "no record was put there")


def refusals(now: Reading) -> Iterator[Check]:
    """Yield who was turned away, made to wait, or failed to shake hands, since the daemon was started."""
    refused = _named(now, "connections_refused_total", "transport", "reason")
    refused |= {f"http {status}": count for status, count in _named(now, "requests_refused_total", "status").items()}
    none, what = "no connection and no request was", "connections and requests since the start (the log says whose)"
    yield _counted("refused", refused, none, what)
    limited = _named(now, "limited_total", "source")
    yield _counted("limited", limited, "no sender was over a limit", "times over a limit since the start")
    failed = {"tls": now.total("tls_handshake_failures_total")}
    yield _counted("handshakes", failed, "none over TLS failed", "failed since the start (the log says whose, and why)")


def alerts(now: Reading) -> Check:
    """Return what no webhook has taken yet."""
    waiting = _named(now, "alert_messages_waiting", "alert")
    none = "no message waits for a webhook here"
    return _counted("alerts", waiting, none, "messages that no webhook has taken yet (the log says why)")


def replica(now: Reading) -> Check:
    """Return whether the read replica answers, if there is one."""
    answers = now.by("replica_up")
    if not answers:
        return Check("replica", "ok", "there is none (reader_database_url)", {})
    if 0 in answers.values():
        return Check(
            "replica", "warning", "it does not answer, and the primary is asked instead (the log says why)", {}
        )
    return Check("replica", "ok", "it answers", {})


def _named(now: Reading, name: str, *labels: str) -> dict[str, float]:
    """Return a metric by the values of labels, as one text."""
    return {" ".join(key): value for key, value in now.by(name, *labels).items()}


def _counted(name: str, counts: Mapping[str, float], none: str, what: str = "records since the start") -> Check:
    found = {visible(key): round(value) for key, value in sorted(counts.items()) if value}
    said = f"{what}: " + ", ".join(f"{key} {count:,}" for key, count in found.items())
    return Check(name, "warning" if found else "ok", said if found else none, found)


def journal(now: Reading) -> Check:
    """Return what waits in the journal, and what is damaged there."""
    names = ("records", "bytes", "age_seconds", "damaged_files", "lost_records", "cut_bytes")
    if not any(name == "logagg_journal_records" for name, _ in now.samples):
        return Check("journal", "ok", "there is none (journal_size = 0)", {})
    found = {name: now.total(f"journal_{name}") for name in names} | {"failures": now.total("journal_failures_total")}
    said = []
    if found["records"]:
        said.append(f"{_records(found['records'])} waiting, the oldest for {_span(found['age_seconds'])}")
    if found["damaged_files"]:
        said.append(f"damaged files: {found['damaged_files']:,}, kept in data_dir/journal as NAME.damaged")
    if found["lost_records"]:
        said.append(f"{_records(found['lost_records'])} in it can be read no more")
    if found["failures"]:
        said.append(f"took nothing {counted(found['failures'], 'time')}, being full or its disk refusing")
    status: Status = "failed" if found["lost_records"] else "warning" if said else "ok"
    return Check("journal", status, "; ".join(said) or "empty, no file is damaged", found)


def packing(now: Reading) -> Check:
    """Return what waits to be packed."""
    batches, age = now.total("unpacked_batches"), now.total("unpacked_age_seconds")
    waiting = counted(batches, "closed batch waits", "closed batches wait")
    said = waiting + (f", the oldest for {_span(age)}" if batches else "")
    numbers = {"batches": batches, "age_seconds": age}
    return Check("packing", "warning" if batches and age > UNPACKED else "ok", said, numbers)


def maintenance(now: Reading) -> Check:
    """Return which tasks failed, and which have not run for long."""
    tasks = {key[0]: value for key, value in now.by("maintenance_failures_total", "task").items()}
    failed = {name: round(count) for name, count in tasks.items() if count}
    ran = {key[0]: now.at - value for key, value in now.by("maintenance_last_run_seconds", "task").items()}
    began = [value for value in now.by("maintenance_failures_created", "task").values() if value]
    age = now.at - min(began) if began else 0.0
    overdue = {name: ran.get(name, age) for name in sorted(tasks) if name != _UNHURRIED}
    overdue = {name: ago for name, ago in overdue.items() if ago > OVERDUE}
    said = [f"{visible(name)} has not run for {_span(ago)}" for name, ago in overdue.items()]
    said += [
        f"{visible(name)} failed {counted(count, 'time')} since the start (the log says why)"
        for name, count in failed.items()
    ]
    numbers = {f"{name}_seconds_ago": round(ago) for name, ago in ran.items()}
    numbers |= {f"{name}_failures": count for name, count in failed.items()}
    well = f"all went well, the latest {_span(min(ran.values()))} ago" if ran else "has not run yet"
    status: Status = "failed" if overdue else "warning" if failed else "ok"
    return Check("maintenance", status, "; ".join(said) or well, numbers)


def _checks(daemon: _Daemon, url: str) -> Iterator[Check]:
    version = daemon.version()
    yield Check("answers", "ok", f"logagg {version} at {visible(url)}", {"version": version})
    trouble = daemon.trouble()
    yield Check("store", "failed" if trouble else "ok", trouble or "PostgreSQL can be reached", {})
    now = daemon.reading()
    yield from books(now)
    yield from losses(now)
    yield from refusals(now)
    for check in (journal, packing, maintenance, replica, alerts):
        yield check(now)


def _line(check: Check, colour: bool) -> str:
    status = paint(check.status, _COLOURS[check.status]) if colour else check.status
    return f"{status}{' ' * (8 - len(check.status))}{visible(check.name)}: {check.said}\n"


@click.command(
    epilog=examples(
        "logagg doctor",
        "logagg doctor --url http://other:8000",
        "logagg doctor -o json | jq '.checks[] | select(.status != \"ok\")'",
    )
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="The form of what is printed."
)
@server_options
@click.pass_context
def doctor(ctx: click.Context, output: str, url: str, token: str | None, timeout: float) -> None:
    """Ask a daemon whether it is well.

    Says of each thing whether it is ok, and the numbers: whether every record that came is accounted for, what was
    dropped or put in quarantine, who was refused, what waits, whether maintenance runs, the read replica answers and
    alerts are delivered. Counts are of this run of the daemon.

    Exits with 0 when nothing failed, 1 when something did, 2 when the daemon cannot be asked.
    """
    checks: list[Check] = []
    with _Daemon(url, token, timeout) as daemon, Screen(pager=False) as screen:
        for check in _checks(daemon, url):
            checks.append(check)
            if output == "text":
                screen.write(_line(check, wants_colour("auto")))
        found = {check.status for check in checks}
        worst = next(status for status in ("failed", "warning", "ok") if status in found)
        if output == "json":
            shown = [each._asdict() for each in checks]
            screen.write(compact({"url": url, "status": worst, "checks": shown}) + "\n")
    ctx.exit(1 if worst == "failed" else 0)
