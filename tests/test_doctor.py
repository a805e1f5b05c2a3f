"""`logagg doctor`: a daemon that is well, one that is not, and answers that no daemon gives."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from logagg.cli import doctor

if TYPE_CHECKING:
    from logagg.tests.daemons import RunningDaemon, Starter
    from logagg.tests.scripted import Answer, Scripted, logagg
else:
    from scripted import Answer, Scripted, logagg


async def asked(daemon: RunningDaemon, *args: str) -> tuple[int, str, str]:
    """Run the program; return its exit code, standard output and standard error."""
    url = f"http://{daemon.listening['http_listen']}"
    command = [sys.executable, "-m", "logagg.cli", "doctor", "--url", url, *args]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def exposed(daemon: RunningDaemon) -> str:
    async with daemon.http.get("/metrics", headers={"Accept": "text/plain"}) as answer:
        return await answer.text()


async def checks(daemon: RunningDaemon) -> dict[str, dict[str, Any]]:
    _, out, err = await asked(daemon, "-o", "json")
    assert err == ""
    return {check["name"]: check for check in json.loads(out)["checks"]}


# --- A whole daemon --------------------------------------------------------------------------------------------------


async def test_a_daemon_that_is_well(daemon: RunningDaemon) -> None:
    async with daemon.http.post("/ingest", json=[{"message": "one"}, {"message": "two"}]) as answer:
        assert answer.status == 200
    await daemon.tcp("tcp_listen", b'{"message": "three"}\n')
    code, out, err = await asked(daemon)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert "ok      books of http: balanced: received 2 = stored 2" in lines
    assert "ok      replica: there is none (reader_database_url)" in lines
    assert any(line.startswith("ok      books of tcp: balanced: received 1 = ") for line in lines)
    assert {line.split(":")[0].split(maxsplit=1)[1] for line in lines} == {
        "answers", "store", "books of http", "books of tcp", "buffer", "dropped", "kernel", "quarantine", "journal",
        "packing", "maintenance", "refused", "limited", "handshakes", "replica", "alerts",
    }  # fmt: skip


async def test_while_records_flow_the_books_balance(daemon: RunningDaemon) -> None:
    stop = asyncio.Event()

    async def flow() -> None:
        while not stop.is_set():
            await daemon.tcp("tcp_listen", b'{"message": "more"}\n' * 100)

    async with asyncio.TaskGroup() as group:
        group.create_task(flow())
        found = await checks(daemon)
        stop.set()
    assert found["books of tcp"]["status"] == "ok"


async def test_what_waits_is_in_the_books(start_daemon: Starter) -> None:
    daemon = await start_daemon(flush_interval="1h")
    await daemon.tcp("tcp_listen", b'{"message": "waits"}\n' * 3)
    found = await checks(daemon)
    assert found["books of tcp"]["said"] == "balanced: received 3 = in flight 3"
    assert found["buffer"]["numbers"] == {"buffer": 3}


async def test_a_leak_in_the_daemon_is_named(daemon: RunningDaemon) -> None:
    await daemon.tcp("tcp_listen", b'{"message": "kept"}\n')
    await daemon.logs()
    # What a leak looks like from outside: a record that was received and is not counted as stored.
    text = await exposed(daemon)
    stored = 'records_stored_total{transport="tcp"} '
    assert f"{stored}1.0" in text
    with Scripted(answers(text.replace(f"{stored}1.0", f"{stored}0.0"))) as server:
        result = await asyncio.to_thread(logagg, "doctor", "--url", server.url)
    assert result.exit_code == 1
    assert "failed  books of tcp: a leak of 1: " in result.output


async def test_every_number_that_is_looked_at_is_one_of_the_daemon(
    start_daemon: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = await start_daemon(reader_database_url="postgresql://nobody@127.0.0.1:1/none")
    names: set[str] = set()

    class Noting(doctor.Reading):
        def total(self, name: str) -> int:
            names.add(name)
            return super().total(name)

        def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
            names.add(name)
            return super().by(name, *labels)

    monkeypatch.setattr(doctor, "Reading", Noting)
    await daemon.tcp("tcp_listen", b'{"message": "one"}\n')
    result = await asyncio.to_thread(logagg, "doctor", "--url", f"http://{daemon.listening['http_listen']}")
    assert result.exit_code == 0
    text = await exposed(daemon)
    assert {"buffer_records", "journal_records", "records_stored_total", "maintenance_failures_created"} <= names
    assert not [name for name in names if not re.search(rf"^(# TYPE )?logagg_{name}[ {{]", text, re.MULTILINE)]


async def test_what_is_put_in_quarantine_is_a_warning(daemon: RunningDaemon) -> None:
    await daemon.tcp("tcp_listen", b'{"message": "good"}\nno json at all {{{\n{"message": \n')
    await daemon.logs()
    found = await checks(daemon)
    assert found["books of tcp"]["status"] == "ok"
    aside = found["books of tcp"]["numbers"]["quarantined"]
    assert aside >= 1
    assert (found["quarantine"]["status"], found["quarantine"]["numbers"]) == ("warning", {"tcp": aside})


async def test_a_store_that_is_away_and_what_waits_for_it(
    daemon: RunningDaemon, database_url: str, postgres_url: str
) -> None:
    database = urlsplit(database_url).path.lstrip("/")
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(f"alter database {database} allow_connections false")
        await connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", database)
        await daemon.tcp("tcp_listen", b'{"message": "kept on disk"}\n')
        while not await daemon.metric("logagg_journal_records"):
            await asyncio.sleep(0.01)
        code, out, _ = await asked(daemon)
        assert code == 1
        assert "\nfailed  store: " in out
        assert "\nok      books of tcp: balanced: received 1 = journaled 1\n" in out
        assert "\nwarning journal: 1 record waiting" in out
        await connection.execute(f"alter database {database} allow_connections true")
        assert [record["message"] for record in await again(daemon)] == ["kept on disk"]
    finally:
        await connection.execute(f"alter database {database} allow_connections true")
        await connection.close()
    code, out, _ = await asked(daemon)
    assert "\nok      books of tcp: balanced: received 1 + replayed 1 = stored 1 + journaled 1\n" in out


async def again(daemon: RunningDaemon) -> list[dict[str, Any]]:
    while not await daemon.metric("logagg_records_replayed_total"):
        await asyncio.sleep(0.01)
    return await daemon.logs()


# --- Scripted metrics ------------------------------------------------------------------------------------------------


def metrics(**given: float | Mapping[str, float]) -> str:
    """Write metrics; labels stand before the value, as `transport="http"`."""
    found: dict[str, float | Mapping[str, float]] = {"buffer_records": 0, **given}
    lines = []
    for name, values in found.items():
        for labels, value in (values if isinstance(values, Mapping) else {"": values}).items():
            lines.append(f"logagg_{name}{{{labels}}} {value}" if labels else f"logagg_{name} {value}")
    return "\n".join(lines) + "\n"


HTTP, TCP, UDP = ('transport="http"', 'transport="tcp"', 'transport="syslog-udp"')
READY: Answer = (200, {}, {"status": "ready"})
ABOUT: Answer = (200, {}, {"service": "logagg", "version": "1.2.3"})


def answers(text: str, ready: Answer = READY, about: Answer = ABOUT) -> Callable[..., Answer]:
    """Answer as a daemon does, with these metrics."""
    asked_before = False

    def answer(path: str, *_: object) -> Answer:
        nonlocal asked_before
        if path == "/readyz":
            return ready
        if not asked_before:
            asked_before = True
            return about
        return 200, {"Content-Type": "text/plain", "Date": formatdate(time.time(), usegmt=True)}, text.encode()

    return answer


def told(text: str, **more: Any) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return the exit code of the doctor, and by check its status and what it says."""
    with Scripted(answers(text, **more)) as server:
        result = logagg("doctor", "-o", "json", "--url", server.url)
    found = json.loads(result.stdout)
    worst = {check["status"] for check in found["checks"]}
    assert found["status"] == next(each for each in ("failed", "warning", "ok") if each in worst)
    return result.exit_code, {check["name"]: (check["status"], check["said"]) for check in found["checks"]}


def test_the_whole_equation() -> None:
    code, found = told(
        metrics(
            buffer_records=3,
            records_in_flight={HTTP: 3, UDP: 1},  # one of them is held back
            records_received_total={HTTP: 100, UDP: 50},
            records_replayed_total={HTTP: 10},
            records_stored_total={HTTP: 91, UDP: 46},
            records_duplicate_total={HTTP: 3},
            records_quarantined_total={HTTP: 2},
            records_journaled_total={HTTP: 10},
            records_dropped_total={f'{HTTP},reason="buffer full"': 1, f'{UDP},reason="buffer full"': 3},
        )
    )
    assert code == 0
    assert found["books of http"] == (
        "ok",
        "balanced: received 100 + replayed 10 = stored 91 + duplicate 3 + quarantined 2 + dropped 1 + journaled 10"
        " + in flight 3",
    )
    assert found["books of syslog-udp"][1].endswith("= stored 46 + dropped 3 + in flight 1")
    assert found["dropped"] == ("warning", "records since the start: http buffer full 1, syslog-udp buffer full 3")


def test_a_leak_is_named_with_its_transport_and_number() -> None:
    code, found = told(metrics(records_received_total={HTTP: 10, TCP: 5}, records_stored_total={HTTP: 10, TCP: 3}))
    assert code == 1
    assert found["books of http"][0] == "ok"
    assert found["books of tcp"] == (
        "failed", "a leak of 2: they came and are neither booked nor in flight: received 5 against stored 3",
    )  # fmt: skip


def test_more_booked_than_came() -> None:
    code, found = told(metrics(records_received_total={HTTP: 2, TCP: 2}, records_stored_total={HTTP: 3, TCP: 1}))
    assert code == 1
    assert found["books of http"][1].startswith("1 record more booked than came: ")


def test_what_is_in_flight_is_of_its_transport() -> None:
    given: dict[str, dict[str, float]] = {"records_received_total": {TCP: 150, UDP: 20}}
    code, found = told(metrics(**given, records_in_flight={TCP: 150, UDP: 20}))
    assert code == 0
    code, found = told(metrics(**given, records_in_flight={TCP: 170, UDP: 0}))
    assert code == 1
    assert found["books of tcp"][1].startswith("20 records more booked than came: ")
    assert found["books of syslog-udp"][1].startswith("a leak of 20: ")


@pytest.mark.parametrize(
    ("given", "name", "status", "said"),
    [
        ({"datagrams_lost_total": {UDP: 1200}}, "kernel", "warning", "syslog-udp 1,200"),
        (
            {"records_received_total": {HTTP: 1}, "records_quarantined_total": {HTTP: 1}},
            "quarantine", "warning", "http 1",
        ),
        (
            {"journal_records": 5, "journal_age_seconds": 300},
            "journal", "warning", "5 records waiting, the oldest for 5 minutes",
        ),
        ({"journal_records": 0, "journal_damaged_files": 1}, "journal", "warning", "damaged files: 1"),
        ({"journal_records": 0, "journal_lost_records": 9}, "journal", "failed", "9 records"),
        ({"journal_records": 0, "journal_failures_total": 2}, "journal", "warning", "took nothing 2 times"),
        ({"journal_records": 0}, "journal", "ok", "empty"),
        ({}, "journal", "ok", "journal_size = 0"),
        ({"unpacked_batches": 3, "unpacked_age_seconds": 10}, "packing", "ok", "3 closed batches wait"),
        ({"unpacked_batches": 3, "unpacked_age_seconds": 9000}, "packing", "warning", "the oldest for 2 hours"),
        ({"maintenance_failures_total": {'task="packing"': 2}}, "maintenance", "warning", "packing failed 2 times"),
        ({"maintenance_failures_total": {'task="packing"': 1}}, "maintenance", "warning", "packing failed 1 time "),
        ({"journal_records": 0, "journal_failures_total": 1}, "journal", "warning", "took nothing 1 time,"),
        ({"unpacked_batches": 1, "unpacked_age_seconds": 10}, "packing", "ok", "1 closed batch waits"),
        ({"buffer_records": 1}, "buffer", "ok", "1 record waits"),
        ({}, "replica", "ok", "there is none"),
        ({"replica_up": 1}, "replica", "ok", "it answers"),
        ({"replica_up": 0}, "replica", "warning", "it does not answer"),
    ],
)  # fmt: skip
def test_what_else_is_looked_at(given: dict[str, Any], name: str, status: str, said: str) -> None:
    code, found = told(metrics(**given))
    assert found[name][0] == status
    assert said in found[name][1]
    assert code == (1 if status == "failed" else 0)


def test_maintenance_that_stands_still() -> None:
    now = time.time()
    tasks = ('task="packing"', 'task="retention"', 'task="gin"')
    given = {"maintenance_failures_total": dict.fromkeys(tasks, 0.0)}
    began = {"maintenance_failures_created": dict.fromkeys(tasks, now - 10000)}
    ran = {"maintenance_last_run_seconds": {tasks[0]: now - 30, tasks[1]: now - 1200}}
    code, found = told(metrics(**given, **began, **ran))
    assert (code, found["maintenance"]) == (1, ("failed", "retention has not run for 20 minutes"))
    # One that has never run is overdue once the daemon runs for so long, and not before.
    code, found = told(metrics(**given, **began, maintenance_last_run_seconds={tasks[0]: now - 30}))
    assert (code, found["maintenance"][1]) == (1, "retention has not run for 3 hours")
    code, found = told(metrics(**given, maintenance_failures_created=dict.fromkeys(tasks, now - 60)))
    assert (code, found["maintenance"]) == (0, ("ok", "has not run yet"))


def test_a_store_that_is_away_is_a_failure() -> None:
    away: Answer = (503, {}, {"status": "not ready", "reason": "connection\x1b[2J refused"})
    code, found = told(metrics(), ready=away)
    assert (code, found["store"]) == (1, ("failed", r"connection\x1b[2J refused"))
    code, found = told(metrics(), ready=(503, {}, b"<html>"))
    assert (code, found["store"]) == (1, ("failed", "the daemon does not say why"))


# --- What cannot be asked --------------------------------------------------------------------------------------------


def test_nobody_there() -> None:
    result = logagg("doctor", "--url", "http://127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("logagg: cannot reach http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda *_: (200, {}, b"<html>"), "is it logagg?"),
        (lambda *_: (200, {}, {"service": "other"}), "is it logagg?"),
        (lambda *_: (200, {}, []), "is it logagg?"),
        (lambda *_: (404, {}, b""), "is it logagg?"),
        (lambda *_: (401, {}, b""), "--token"),
        (answers(""), "not the metrics of a logagg"),
        (answers("up 1\n"), "not the metrics of a logagg"),
        (answers("logagg_buffer_records NaN\n"), "cannot be read"),
        (answers("logagg_buffer_records +Inf\n"), "cannot be read"),
        (answers("logagg_buffer_records{a=\n"), "cannot be read"),
        (answers("logagg_buffer_records many\n"), "cannot be read"),
        (answers(metrics(), ready=(200, {}, b"yes")), "is not JSON"),
        (answers(metrics(), ready=(500, {}, b"")), "500"),
    ],
)
def test_odd_answers(answer: Callable[..., Answer], said: str) -> None:
    with Scripted(answer) as server:
        result = logagg("doctor", "--url", server.url)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
