"""What the embedded server asks of the machine: settings that fit it, folders, locks, processes."""

import fcntl
import os
import shutil
from pathlib import Path

from logagg.sinks.programs import Account

MB = 1 << 20
_OF_A_DAEMON = {"journal", "tokens.json"}


def fit(data_dir: Path) -> dict[str, str]:
    """Return the server's settings for this machine: memory by its RAM, WAL by the free disk."""
    memory = _memory()
    wal = max(min(4096 * MB, shutil.disk_usage(data_dir).free // 10), 256 * MB)
    return {
        "shared_buffers": f"{max(64, min(memory // 8 // MB, 2048))}MB",
        "effective_cache_size": f"{max(128, memory // 2 // MB)}MB",
        "maintenance_work_mem": f"{max(16, min(memory // 64 // MB, 256))}MB",
        "work_mem": "16MB",
        "max_wal_size": f"{wal // MB}MB",
        "checkpoint_timeout": "15min",
        "wal_compression": "on",
        "fsync": "on",
        "synchronous_commit": "on",  # an ack is given after COMMIT, so a COMMIT has to be durable
        "jit": "off",  # compiling costs more than our short queries
        "random_page_cost": "1.1",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
        "log_error_verbosity": "terse",  # the rows of a failed COPY are not for the log
        "log_min_error_statement": "panic",
    }


def _memory() -> int:
    """Return the bytes of memory that this machine, or the container around us, has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def ours_alone(folder: Path) -> bool:
    """Tell whether a folder is this user's, with nothing in it but what a daemon on another PostgreSQL puts there."""
    return folder.stat().st_uid == os.geteuid() and {path.name for path in folder.iterdir()} <= _OF_A_DAEMON


def make_folder(path: Path, mode: int, user: Account | None) -> None:
    """Make a folder of exactly this mode for `user`; raises FileExistsError."""
    path.mkdir()
    give(path, user)
    path.chmod(mode)  # whatever the umask


def give(path: Path, user: Account | None) -> None:
    """Make `user`, if any, the owner of what we have just made."""
    if user:
        os.chown(path, user.uid, user.gid, follow_symlinks=False)


def write(path: Path, content: bytes, user: Account | None) -> None:
    """Put a new file of mode 0600 in place of another, whole, and through no link that somebody else may have set."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
    give(part, user)
    part.rename(path)


def open_lock(path: Path, user: Account | None) -> int:
    """Open a lock file, made when missing, without following a link."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if user:
        os.fchown(file, user.uid, user.gid)  # so that the user itself, without root, can go on with the same data
    return file


def try_lock(file: int) -> bool:
    """Take the exclusive flock of an open file, if it is free."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def alive(pid: int) -> bool:
    """Tell whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def serves(pid: int, cluster: Path) -> bool:
    """Tell whether the process is the server of this cluster: numbers of processes are used again."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == cluster.resolve()
    except OSError:  # not there, a zombie, or somebody else's; where there is no /proc the number has to do
        return not Path("/proc/self").exists() and alive(pid)


def free(folder: Path) -> str:
    """Say for an error message how full the disk is."""
    there = next(p for p in (folder, *folder.parents) if p.exists())
    return f"{shutil.disk_usage(there).free // MB} MB free on its disk"
