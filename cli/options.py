"""Options that several commands share, and what they become: an `Asking` for the reading commands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, tzinfo
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logagg.cli.client import FILES, Client, Params
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


class Level(click.Choice[str]):
    """A level, in any case, with the usual short forms."""

    name = "level"

    def __init__(self) -> None:
        super().__init__(LEVELS, case_sensitive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as records have it."""
        return super().convert(_LEVEL_ALIASES.get(str(value).upper(), value), param, ctx)


class Whole(click.IntRange):
    """A whole number within a range; a text that is none is told what is wanted."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            wanted = f"{self.min} or more" if self.max is None else f"{self.min} to {self.max}"
            self.fail(f"{value!r}: expected a whole number, {wanted}", param, ctx)


@dataclass(frozen=True, kw_only=True)
class Server:
    """Whom to ask, and in which zone times are meant."""

    url: str
    token: str | None
    timeout: float
    utc: bool

    @property
    def zone(self) -> tzinfo | None:
        """The zone of times, read and printed; None is the machine's."""
        return UTC if self.utc else None


@dataclass(frozen=True, kw_only=True)
class Picking(Server):
    """Which records; without a range where a command has none."""

    level: str | None
    service: str | None
    host: str | None
    environment: str | None
    since: str | None = None
    until: str | None = None

    def params(self, query: Sequence[str] = ()) -> dict[str, str]:
        """Return the parameters of the HTTP API that pick the records."""
        now = datetime.now(UTC)
        start, end = self.moment("--since", self.since, now), self.moment("--until", self.until, now)
        if start and end and start > end:
            raise click.UsageError(f"--since {self.since} is after --until {self.until}: nothing can match")
        given = {
            "q": " ".join(query) or None,
            "start_time": rfc3339(start) if start else None,
            "end_time": rfc3339(end) if end else None,
            "level": self.level,
            "service": self.service,
            "host": self.host,
            "environment": self.environment,
        }
        return {name: value for name, value in given.items() if value is not None}

    def moment(self, option: str, text: str | None, now: datetime) -> datetime | None:
        """Read the time of an option. Raises UsageError."""
        if text is None:
            return None
        try:
            return parse_time(text, now, self.zone)
        except ValueError as error:
            raise click.UsageError(f"{option}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Printing(Server):
    """How to print what a server answers."""

    output: str
    color: str
    pager: bool = False

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


@dataclass(frozen=True, kw_only=True)
class Asking(Picking, Printing):
    """What the reading commands share: which records, and how to print."""

    stats: bool = False

    def params(self, query: Sequence[str] = ()) -> dict[str, str]:
        """Return the parameters of the HTTP API: which records, and whether to say what the answer cost."""
        return super().params(query) | ({"stats": "true"} if self.stats else {})


class _Listening(Client):
    """A client that notes what answers say of themselves: what they cost, what is missing, why nothing was found."""

    def __init__(self, url: str, token: str | None, timeout: float) -> None:
        super().__init__(url, token, timeout)
        self._stats: list[str] = []
        self._missing: dict[str, None] = {}
        self._hints: dict[str, None] = {}

    def _request(
        self, method: str, target: str, body: bytes | None = None, headers: Params | None = None
    ) -> "tuple[HTTPResponse, bytes]":
        response, answer = super()._request(method, target, body, headers)
        if stats := response.getheader("X-Logagg-Stats"):
            self._stats.append(stats)
        if missing := response.getheader("X-Logagg-Incomplete"):
            self._missing[missing] = None
        if hint := response.getheader("X-Logagg-Hint"):
            self._hints[hint] = None
        return response, answer

    def tell(self) -> None:
        """Print it to stderr."""
        for hint in self._hints:
            note(hint)
        for missing in self._missing:
            note(f"warning: the answer is not whole: {missing}")
        for line in cost(self._stats):
            note(line)


def rfc3339(moment: datetime) -> str:
    """Write a time in UTC as the HTTP API takes it."""
    return moment.isoformat().replace("+00:00", "Z")


def adding(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return what adds options to a command, in the order in which help shows them."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _remember_file(ctx: click.Context, option: click.Parameter, value: str | None) -> None:
    ctx.meta.setdefault(FILES, {})[option.name] = value


def _file(name: str, text: str) -> Callable[[Command], Command]:
    variable = "LOGAGG_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(
        name, envvar=variable, show_envvar=True, metavar="FILE", expose_value=False, callback=_remember_file,
        type=click.Path(dir_okay=False), help=text,
    )  # fmt: skip


server_options = adding(
    click.option("--url", envvar="LOGAGG_URL", default=DEFAULT_URL, show_envvar=True, help="The daemon to ask."),
    click.option("--token", envvar="LOGAGG_TOKEN", show_envvar=True, help="Token, if the daemon wants one."),
    _file("--ca-file", "PEM file of the certificates to trust for https; without it, the system's, or SSL_CERT_FILE."),
    _file("--cert-file", "PEM file of a certificate that shows who asks, where the daemon wants one (tls_client_ca)."),
    _file("--key-file", "PEM file of its key; without it, the key is in the same file."),
    click.option(
        "--timeout", type=click.FloatRange(0, min_open=True), default=60, metavar="SECONDS",
        help="How long to wait for an answer.",
    ),
)  # fmt: skip

_query = click.argument("query", nargs=-1)
_filters = adding(
    click.option("--level", type=Level(), metavar="LEVEL", help="Only this level, such as error."),
    click.option("--service", help="Only this service."),
    click.option("--host", help="Only this host."),
    click.option("--environment", help="Only this environment."),
)
_zone = click.option("--utc/--local", default=False, help="The time zone of TIME, and of text that is printed.")
_range = adding(
    click.option("--since", metavar="TIME", help="From this time on: 15m, 2h, today, 2026-11-20T10:00, ..."),
    click.option("--until", metavar="TIME", help="Up to this time."),
)
_pager = click.option("--pager/--no-pager", default=True, help="On a terminal, page what is longer than it.")
_stats = click.option(
    "--stats", is_flag=True, help="Say on stderr what the answer cost: batches skipped, read, bytes, milliseconds."
)


def picking_options(command: Command) -> Command:
    """Add QUERY and every option of `Picking`; the command gets them as `query` and `picking`."""
    return adding(_query, _range, _filters, _zone, server_options)(_gathered(command, "picking", Picking))


def _form_options(outputs: Sequence[str]) -> Callable[[Command], Command]:
    return adding(
        click.option(
            "-o", "--output", type=click.Choice(outputs), default="text", help="The form of what is printed."
        ),
        click.option(
            "--color", "--colour", "color", type=click.Choice(["auto", "always", "never"]), default="auto",
            help="Colours; auto: on a terminal, unless NO_COLOR is set.",
        ),
    )  # fmt: skip


def printing_options(outputs: Sequence[str]) -> Callable[[Command], Command]:
    """Add every option of `Printing`; the command gets them as `printing`."""
    added = adding(_zone, _form_options(outputs), _pager, server_options)
    return lambda command: added(_gathered(command, "printing", Printing))


def reading_options(outputs: Sequence[str], *, ranged: bool = True, paged: bool = True) -> Callable[[Command], Command]:
    """Add QUERY and every option of `Asking`; the command gets them as `query` and `asking`.

    `ranged`: with a range of time. `paged`: with what fits an answer that ends, a pager and what it cost.
    """
    range_ = [_range] if ranged else []
    paging = [_pager, _stats] if paged else []
    added = adding(_query, *range_, _filters, _zone, _form_options(outputs), *paging, server_options)
    return lambda command: added(_gathered(command, "asking", Asking))


def _gathered(command: Command, name: str, kind: type[Server]) -> Command:
    """Return the command with the options that make one argument gathered into it."""

    @wraps(command)
    def gathered(**given: Any) -> Any:
        made = kind(**{field.name: given.pop(field.name) for field in fields(kind) if field.name in given})
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
