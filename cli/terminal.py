"""What goes to the terminal: failures, colours, the pager, and text made harmless.

Nothing in a record can act on a terminal: all that is printed there has passed `visible` or `harmless_json`, and the
only escape sequences are those that `paint` adds.
"""

import os
import re
import shutil
import sys
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

import click

if TYPE_CHECKING:
    from subprocess import Popen


class Failure(click.ClickException):
    """The command cannot go on; the message is one line that says what to do. Exit code 2."""

    exit_code = 2


# C0 and C1 controls (with DEL), line and paragraph separators, and what reorders the rest of the line (Unicode
# bidirectional embeddings, overrides, isolates). Lone surrogates cannot be written at all.
_BEYOND_C0 = "\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE_BLOCK = re.compile(f"[\x00-\x08\x0b-\x1f{_BEYOND_C0}]")
_UNSAFE_LINE = re.compile(f"[\x00-\x1f{_BEYOND_C0}]")
_UNSAFE_JSON = re.compile(f"[{_BEYOND_C0}]")
_NAMED = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}


def _spelled(found: re.Match[str]) -> str:
    char = found[0]
    return _NAMED.get(char) or (f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}")


def visible(text: str, *, block: bool = False) -> str:
    r"""Spell out what could act on a terminal: ESC becomes the four characters `\x1b`.

    `block` is for text of several lines: line feeds and tabs stay.
    """
    return (_UNSAFE_BLOCK if block else _UNSAFE_LINE).sub(_spelled, text)


def harmless_json(text: str) -> str:
    """Write as JSON escapes what JSON allows in a string but could act on a terminal; the value stays the same."""
    return _UNSAFE_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def paint(text: str, code: str) -> str:
    """Colour text with an SGR code such as `1;31`; the empty code leaves it plain."""
    return f"\x1b[{code}m{text}\x1b[0m" if code else text


def wants_colour(choice: str) -> bool:
    """Whether to colour, for `--color auto|always|never`: auto is a terminal, unless NO_COLOR or TERM=dumb says no."""
    if choice != "auto":
        return choice == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def note(text: str) -> None:
    """Tell the operator something on standard error."""
    click.echo(visible(text), err=True)


class Screen:
    """Standard output; on a terminal, what is longer than it goes through a pager.

    Text gathers until it is known to be longer than the terminal, so short answers never meet the pager. A pager that
    is left early raises BrokenPipeError, as a closed pipe does.
    """

    def __init__(self, *, pager: bool, at_end: bool = False) -> None:
        stdout = sys.stdout
        self._terminal = stdout.isatty()
        self._encoding = stdout.encoding if self._terminal else "utf-8"
        self._sink: IO[bytes] = stdout.buffer
        self._command = _pager_command(at_end) if pager and self._terminal and sys.stdin.isatty() else None
        self._held: list[str] = []
        self._room = shutil.get_terminal_size().lines - 1
        self._process: Popen[bytes] | None = None

    def write(self, text: str) -> None:
        """Write whole lines."""
        if self._command is None or self._process is not None:
            self._put(text)
            return
        self._held.append(text)
        self._room -= text.count("\n")
        if self._room < 0:
            self._start_pager(self._command)
            self._release()

    def _put(self, text: str) -> None:
        self._sink.write(text.encode(self._encoding, "replace"))
        self._sink.flush()

    def _release(self) -> None:
        if self._held:
            held, self._held = "".join(self._held), []
            self._put(held)

    def _start_pager(self, command: list[str]) -> None:
        import subprocess

        # As git does: F ends at once where all fits, R lets colours through, X leaves the text on the screen.
        env = {"LESS": "FRX", **os.environ}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env=env)  # noqa: S603 -- the user's own PAGER
        assert self._process.stdin is not None  # noqa: S101 -- for mypy: it is a pipe
        self._sink = self._process.stdin

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._release()
            if self._process is not None:
                self._sink.close()
        except BrokenPipeError:
            if self._process is None:
                raise
        finally:
            self._wait()

    def _wait(self) -> None:
        while self._process is not None:
            try:
                self._process.wait()
            except KeyboardInterrupt:
                continue  # it was meant for the pager
            return


def _pager_command(at_end: bool) -> list[str] | None:
    import shlex

    command = shlex.split(os.environ.get("PAGER") or "less")
    if not command or not shutil.which(command[0]):
        return None
    if at_end and command[0].rpartition("/")[2] == "less":
        command.append("+G")
    return command
