"""Options that several commands share, and what they become: an `Asking` for the reading commands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, tzinfo
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logagg.cli.client import Client, Params
from logagg.cli.output import cost
from logagg.cli.terminal import note, wants_colour
from logagg.cli.timespec import parse_time
from logagg.protocols.record import LEVELS

if TYPE_CHECKING:
    from http.client import HTTPResponse

Command = Callable[..., Any]

DEFAULT_URL = "http://127.0.0.1:8000"
_LEVEL_ALIASES = {
    "EMERG": "EMERGENCY", "PANIC": "EMERGENCY", "FATAL": "CRITICAL", "CRIT": "CRITICAL", "ERR": "ERROR",
    "WARN": "WARNING", "INFORMATIONAL": "INFO",
}  # fmt: skip


class SuggestingGroup(click.Group):
    """A group that names the nearest command when it is given a wrong one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], known, n=1)
            hint = f"; did you mean `{ctx.command_path} {near[0]}`?" if near else ""
            ctx.fail(f"no such command: {args[0]}{hint}")
        return super().resolve_command(ctx, args)


class Level(click.Choice[str]):
    """A level, in any case, with the usual short forms."""

    name = "level"

    def __init__(self) -> None:
        super().__init__(LEVELS, case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as records have it."""
        return super().convert(_LEVEL_ALIASES.get(str(value).upper(), value), param, ctx)


@dataclass(frozen=True)
class Picking:
    """Whom to ask, and about which records."""

    url: str
    token: str | None
    timeout: float
    since: str | None
    until: str | None
    level: str | None
    service: str | None
    host: str | None
    environment: str | None
    utc: bool

    @property
    def zone(self) -> tzinfo | None:
        """The zone of times, read and printed; None is the machine's."""
        return UTC if self.utc else None

    def params(self, query: Sequence[str] = ()) -> dict[str, str]:
        """Return the parameters of the HTTP API that pick the records."""
        now = datetime.now(UTC)
        start, end = self._time("--since", self.since, now), self._time("--until", self.until, now)
        if start and end and start > end:
            raise click.UsageError(f"--since {self.since} is after --until {self.until}: nothing can match")
        given = {
            "q": " ".join(query) or None,
            "start_time": _rfc3339(start),
            "end_time": _rfc3339(end),
            "level": self.level,
            "service": self.service,
            "host": self.host,
            "environment": self.environment,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _time(self, option: str, text: str | None, now: datetime) -> datetime | None:
        if text is None:
            return None
        try:
            return parse_time(text, now, self.zone)
        except ValueError as error:
            raise click.UsageError(f"{option}: {error}") from None


@dataclass(frozen=True)
class Asking(Picking):
    """What the reading commands share: also how to print."""

    output: str
    color: str
    pager: bool
    stats: bool

    def client(self) -> Client:
        """Return a client of the server that was named; it is closed when the command ends."""
        context = click.get_current_context()
        client = context.with_resource(_Listening(self.url, self.token, self.timeout))
        context.call_on_close(client.tell)
        return client

    @property
    def colour(self) -> bool:
        """Whether to colour what is printed."""
        return wants_colour(self.color)

    def params(self, query: Sequence[str] = ()) -> dict[str, str]:
        """Return the parameters of the HTTP API: which records, and whether to say what the answer cost."""
        return super().params(query) | ({"stats": "true"} if self.stats else {})


class _Listening(Client):
    """A client that notes what answers say of themselves: what they cost, and what is missing from them."""

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        super().__init__(url, token, timeout)
        self._stats: list[str] = []
        self._missing: dict[str, None] = {}

    def _request(
        self, method: str, target: str, body: bytes | None = None, headers: Params | None = None
    ) -> "tuple[HTTPResponse, bytes]":
        response, answer = super()._request(method, target, body, headers)
        if stats := response.getheader("X-Logagg-Stats"):
            self._stats.append(stats)
        if missing := response.getheader("X-Logagg-Incomplete"):
            self._missing[missing] = None
        return response, answer

    def tell(self) -> None:
        """Print it to stderr."""
        for missing in self._missing:
            note(f"warning: the answer is not whole: {missing}")
        for line in cost(self._stats):
            note(line)


def _rfc3339(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None


def _adding(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return what adds options, in the order in which help shows them."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


server_options = _adding(
    click.option("--url", envvar="LOGAGG_URL", default=DEFAULT_URL, show_envvar=True, help="The daemon to ask."),
    click.option("--token", envvar="LOGAGG_TOKEN", show_envvar=True, help="Token, if the daemon wants one."),
    click.option(
        "--timeout", type=click.FloatRange(0, min_open=True), default=60, metavar="SECONDS",
        help="How long to wait for an answer.",
    ),
)  # fmt: skip

_picking = _adding(
    click.argument("query", nargs=-1),
    click.option("--since", metavar="TIME", help="From this time on: 15m, 2h, today, 2026-11-20T10:00, ..."),
    click.option("--until", metavar="TIME", help="Up to this time."),
    click.option("--level", type=Level(), metavar="LEVEL", help="Only this level, such as error."),
    click.option("--service", help="Only this service."),
    click.option("--host", help="Only this host."),
    click.option("--environment", help="Only this environment."),
    click.option("--utc/--local", default=False, help="The time zone of TIME, and of text that is printed."),
)


def picking_options(command: Command) -> Command:
    """Add QUERY and every option of `Picking`; the command gets them as `query` and `picking`."""
    return _picking(server_options(_gathered(command, "picking", Picking)))


def reading_options(outputs: Sequence[str]) -> Callable[[Command], Command]:
    """Add QUERY and every option of `Asking`; the command gets them as `query` and `asking`."""
    printing = _adding(
        click.option(
            "-o", "--output", type=click.Choice(outputs), default="text", help="The form of what is printed."
        ),
        click.option(
            "--color", type=click.Choice(["auto", "always", "never"]), default="auto",
            help="Colours; auto: on a terminal, unless NO_COLOR is set.",
        ),
        click.option("--pager/--no-pager", default=True, help="On a terminal, page what is longer than it."),
        click.option("--stats", is_flag=True, help="Say on stderr what the answer cost: batches skipped, read, bytes."),
    )  # fmt: skip
    return lambda command: _picking(printing(server_options(_gathered(command, "asking", Asking))))


def _gathered(command: Command, name: str, kind: type[Picking]) -> Command:
    """Return the command with the options that make one argument gathered into it."""

    @wraps(command)
    def gathered(**given: Any) -> Any:
        made = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        return command(**{name: made}, **given)

    return gathered


def examples(*lines: str) -> str:
    """Return an epilog that click prints as it stands."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def config_option(command: Command) -> Command:
    """Add --config."""
    return click.option(
        "--config", type=click.Path(path_type=Path), envvar="LOGAGG_CONFIG", show_envvar=True, metavar="FILE",
        help="TOML file of settings.",
    )(command)  # fmt: skip
