"""Packing in a process of its own: it shares neither the interpreter's lock with the ingest, nor its priority.

`python -m logagg.sinks.packhand` is handed files with a frame each (see `spool`), as descriptors over the Unix socket
that is its input, and writes what `packing.pack` makes of them, until its input ends, as it does when the daemon dies.
The answer is the text of an error, or None and the parts of a packed batch; each stands behind its length in eight
bytes, -1 for None.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from typing import IO

from logagg.sinks.packing import Packed, pack
from logagg.sinks.spool import Spool, read

#: Ingest goes first.
_NICE = 10
_LENGTH = struct.Struct(">q")
_NONE = -1
#: Seconds for one batch, which takes half of one: even on a machine that has everything else to do.
_PATIENCE = 120.0

#: One thread of polars takes less CPU than two, and memory that is given back at once is 30 MB less.
_ENVIRONMENT = {"POLARS_MAX_THREADS": "1", "_RJEM_MALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0"}
#: What a descriptor comes along with, for it cannot come alone.
_FRAME = b"f"


class PackError(Exception):
    """The batch was not packed."""


class _Died(Exception):
    """The process has ended without an answer."""


class PackHand:
    """Packs in another process, which is started when it is needed. Not for several threads at once."""

    def __init__(self, patience: float = _PATIENCE) -> None:
        """Kill a process that takes more than `patience` seconds for a batch."""
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._closed = False

    def pack(self, frame: Spool) -> Packed:
        """Return what `packing.pack` makes of the frame; blocks the thread meanwhile.

        A process that dies over it is replaced once. Raises PackError.
        """
        try:
            return self._pack(frame)
        except _Died:
            pass
        try:
            return self._pack(frame)
        except _Died as error:
            raise PackError(str(error)) from error

    def _pack(self, frame: Spool) -> Packed:
        process, ours = self._started()
        assert process.stdout  # noqa: S101  # a pipe
        watch = threading.Timer(self._patience, process.kill)  # one that hangs must not hold up all that come behind
        watch.start()
        try:
            socket.send_fds(ours, [_FRAME], [frame.fileno()])
            if error := _received(process.stdout):
                raise PackError(error.decode())
            head, body, words, summary, checksums = (_received(process.stdout) for _ in Packed._fields)
        except (OSError, EOFError, MemoryError, OverflowError) as error:  # the last two: a length that is none
            self.stop()
            raise _Died(f"the packing process has ended with status {process.returncode}") from error
        finally:
            watch.cancel()
        return Packed(head or b"", body or b"", words or b"", summary, checksums or b"")

    def close(self) -> None:
        """End the process, and start no other: who packs meanwhile gets a PackError."""
        self._closed = True
        self.stop()

    def stop(self) -> None:
        """End the process. The next batch starts another."""
        process, self._process = self._process, None
        ours, self._socket = self._socket, None
        if ours:
            ours.close()
        if process:
            process.terminate()
            process.__exit__(None, None, None)

    def _started(self) -> "tuple[subprocess.Popen[bytes], socket.socket]":
        if self._process and self._socket and self._process.poll() is None:
            return self._process, self._socket
        if self._closed:
            raise PackError("packing has ended")
        self.stop()
        command = [sys.executable, "-m", "logagg.sinks.packhand"]
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - ours
                command, stdin=theirs.fileno(), stdout=subprocess.PIPE, env=os.environ | _ENVIRONMENT
            )
        return self._process, self._socket


def main() -> None:
    """Pack what comes in until nothing comes any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the daemon decides when we end
    os.nice(_NICE)
    source, target = socket.socket(fileno=os.dup(sys.stdin.fileno())), os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library may print belongs into no answer
    with contextlib.suppress(BrokenPipeError):
        while (handed := socket.recv_fds(source, len(_FRAME), 1))[0]:
            _answer(handed[1][0], target)


def _answer(fd: int, target: IO[bytes]) -> None:
    try:
        packed = pack(read(fd))
    except Exception as error:  # whatever it is, the daemon shall know, and the next batch may be another matter
        _send(target, f"{type(error).__name__}: {error}".encode())
    else:
        _send(target, None, *packed)
    finally:
        os.close(fd)


def _send(target: IO[bytes], *parts: bytes | None) -> None:
    for part in parts:
        target.write(_LENGTH.pack(_NONE if part is None else len(part)))
        target.write(part or b"")
    target.flush()


def _received(source: IO[bytes]) -> bytes | None:
    """Return the next part. Raises EOFError where there is none, or not the whole of it."""
    (length,) = _LENGTH.unpack(_exactly(source, _LENGTH.size))
    return None if length == _NONE else _exactly(source, length)


def _exactly(source: IO[bytes], length: int) -> bytes:
    data = source.read(length)
    if len(data) < length:
        raise EOFError
    return data


if __name__ == "__main__":
    main()
