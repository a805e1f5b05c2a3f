"""The options of `logagg db init` that make a role which only reads."""

from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import click

from logagg.cli.database_sql import duration
from logagg.cli.options import Command
from logagg.cli.terminal import Failure


class Reader(NamedTuple):
    """A role to be made."""

    name: str
    password_file: Path | None
    limit: timedelta

    async def make(self, connection: Any) -> list[str]:
        """Make the role; return lines to tell the operator. Raises Failure where PostgreSQL does not let us."""
        import asyncpg

        from logagg.sinks.reader import make_reader

        password = _first_line(self.password_file) if self.password_file else None
        try:
            return await make_reader(connection, self.name, password=password, limit=self.limit)
        except asyncpg.InsufficientPrivilegeError as error:
            raise Failure(f"{error}: --reader needs a user who may create roles, and the owner of the tables") from None


def _first_line(file: Path) -> str:
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return lines[0] if lines else ""


def reader_options(command: Command) -> Command:
    """Add --reader, --password-file and --reader-timeout; the command gets them as `reader`, None without a name."""

    @wraps(command)
    def gathered(reader: str | None, password_file: Path | None, reader_timeout: timedelta, **given: Any) -> Any:
        if password_file and reader is None:
            raise click.UsageError("--password-file is for --reader NAME")
        return command(reader=None if reader is None else Reader(reader, password_file, reader_timeout), **given)

    decorated: Command = gathered
    for option in reversed((
        click.option("--reader", metavar="NAME", help="Also make this role, which may only read, or mend it."),
        click.option(
            "--password-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
            help="Its password, in the first line of FILE; without it, it keeps the one that it has.",
        ),
        click.option(
            "--reader-timeout", callback=duration, default="1m", metavar="SPAN",
            help="How long a statement of it may take, unless it sets another time itself.",
        ),
    )):  # fmt: skip
        decorated = option(decorated)
    return decorated
