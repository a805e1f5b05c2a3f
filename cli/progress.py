"""How far a long export or send has come: one line on standard error, where that is a terminal, and else nothing."""

import sys
import time
from collections.abc import Callable

from logagg.cli.postgres import sized
from logagg.cli.terminal import Failure, note

#: Seconds between two drawings.
_PACE = 0.5
_BAR = 24


class Bar:
    """A line that is drawn again and again: a bar once the total is known, and a text."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._began = self._drawn = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return max(time.monotonic() - self._began, 0.001)

    def draw(self, done: int, total: int | None, text: str) -> None:
        """Draw it, unless that was only just done."""
        if self._shown and time.monotonic() - self._drawn >= _PACE:
            self._drawn = time.monotonic()
            sys.stderr.write(f"\r{self._bar(done, total)}{text}\x1b[K")
            sys.stderr.flush()

    def _bar(self, done: int, total: int | None) -> str:
        if not total:
            return ""
        share = min(done / total, 1.0)
        filled = int(share * _BAR)
        left = f", {_clock(self.seconds * (1 - share) / share)} left" if share > 0 else ""
        return f"[{'#' * filled}{'-' * (_BAR - filled)}] {share:4.0%}{left}  "

    def clear(self) -> None:
        """Take the line away, for another text on standard error."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _clock(seconds: float) -> str:
    whole = int(seconds)
    hours = f"{whole // 3600}:{whole // 60 % 60:02}" if whole >= 3600 else f"{whole // 60}"
    return f"{hours}:{whole % 60:02}"


class Records:
    """What has come of an export, in the form `jsonl`, `csv` or `parquet`."""

    def __init__(self, form: str, *, shown: bool) -> None:
        self._form = form
        self._shown = shown
        self._bar = Bar(shown=shown)
        self._total: int | None = None
        self._bytes = 0
        self._lines = 0
        self._quoted = False

    def expect(self, count: Callable[[], int]) -> None:
        """Have the total counted meanwhile: the export does not wait for it, and goes on without it."""
        from threading import Thread

        def ask() -> None:
            try:
                self._total = count()
            except Failure:
                self._total = None  # it took too long: a line without a bar

        if self._shown and self._form != "parquet":
            Thread(target=ask, daemon=True).start()

    def add(self, part: bytes) -> None:
        """Count bytes and records."""
        if not self._shown:
            return
        self._bytes += len(part)
        if self._form == "csv":
            self._count_quoted(part)
        else:
            self._lines += part.count(b"\n")
        self._bar.draw(self._records, self._total, str(self))

    def _count_quoted(self, part: bytes) -> None:
        """Count the line feeds that end a line: those behind an even number of quotes."""
        for place, piece in enumerate(part.split(b'"')):
            self._quoted ^= place > 0
            self._lines += 0 if self._quoted else piece.count(b"\n")

    @property
    def _records(self) -> int:
        return max(self._lines - (self._form == "csv"), 0)

    def __str__(self) -> str:
        counted = "" if self._form == "parquet" else f"{self._records:,} records, "
        return f"{counted}{sized(self._bytes)}, {sized(round(self._bytes / self._bar.seconds))}/s"

    def end(self) -> None:
        """Say how much it was."""
        self._bar.clear()
        if self._shown:
            note(str(self))
