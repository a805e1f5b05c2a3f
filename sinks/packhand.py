"""Packing in a process of its own: it shares neither the interpreter's lock with the ingest, nor its priority.

`python -m logagg.sinks.packhand` reads frames and writes what `packing.pack` makes of them, until its input ends, as
it does when the daemon dies. Parts stand behind their length in eight bytes, -1 for None. A frame is some parts, in
Arrow's IPC format, and None. The answer is the text of an error, or None and the four parts of a packed batch.
"""

import contextlib
import io
import os
import signal
import struct
import subprocess
import sys
import threading
from typing import IO

import polars as pl

from logagg.sinks.packing import Packed, pack

#: Ingest goes first.
_NICE = 10
_LENGTH = struct.Struct(">q")
_NONE = -1
#: Seconds for one batch, which takes half of one: even on a machine that has everything else to do.
_PATIENCE = 120.0
#: Records that are copied at once.
_SLICE = 8192

Part = bytes | memoryview | None


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
        self._closed = False

    def pack(self, frame: pl.DataFrame) -> Packed:
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

    def _pack(self, frame: pl.DataFrame) -> Packed:
        process = self._started()
        assert process.stdin  # noqa: S101  # both are pipes
        assert process.stdout  # noqa: S101
        watch = threading.Timer(self._patience, process.kill)  # one that hangs must not hold up all that come behind
        watch.start()
        try:
            for part in frame.iter_slices(_SLICE):
                _send(process.stdin, _to_ipc(part))
            _send(process.stdin, None)
            if error := _received(process.stdout):
                raise PackError(error.decode())
            head, body, filter_, summary = (_received(process.stdout) for _ in Packed._fields)
        except (OSError, EOFError, MemoryError, OverflowError) as error:  # the last two: a length that is none
            self.stop()
            raise _Died(f"the packing process has ended with status {process.returncode}") from error
        finally:
            watch.cancel()
        return Packed(head or b"", body or b"", filter_ or b"", summary)

    def close(self) -> None:
        """End the process, and start no other: who packs meanwhile gets a PackError."""
        self._closed = True
        self.stop()

    def stop(self) -> None:
        """End the process. The next batch starts another."""
        process, self._process = self._process, None
        if process:
            process.terminate()
            with contextlib.suppress(OSError):  # what was not written yet
                process.__exit__(None, None, None)

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            if self._closed:
                raise PackError("packing has ended")
            command = [sys.executable, "-m", "logagg.sinks.packhand"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - ours
        return self._process


def main() -> None:
    """Pack what comes in until nothing comes any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the daemon decides when we end
    os.nice(_NICE)
    source, target = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library may print belongs into no answer
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            _answer(source, target)


def _answer(source: IO[bytes], target: IO[bytes]) -> None:
    parts = []
    while (part := _received(source)) is not None:
        parts.append(pl.read_ipc(io.BytesIO(part)))
    try:
        packed = pack(pl.concat(parts))
    except Exception as error:  # whatever it is, the daemon shall know, and the next batch may be another matter
        _send(target, f"{type(error).__name__}: {error}".encode())
    else:
        _send(target, None, *packed)


def _to_ipc(frame: pl.DataFrame) -> memoryview:
    buffer = io.BytesIO()
    frame.write_ipc(buffer, compression="uncompressed")
    return buffer.getbuffer()


def _send(target: IO[bytes], *parts: Part) -> None:
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
