"""`logagg serve` and `logagg check-config`."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from logagg.cli.options import config_option, examples
from logagg.cli.output import table
from logagg.cli.terminal import Failure, Screen, note

if TYPE_CHECKING:
    from logagg.collector.settings import Settings


def settings_from(config: Path | None) -> "Settings":
    """Load the settings; warn of variables that look like settings but are none. Raises Failure, a line an error."""
    from logagg.collector.config import load_settings, unknown_variables
    from logagg.collector.settings import SettingsError

    try:
        settings = load_settings(config)
    except SettingsError as error:
        raise _failure(str(error).splitlines()) from None
    for name in unknown_variables():
        note(f"warning: {name} is set, but there is no such setting")
    return settings


def _failure(lines: list[str]) -> Failure:
    return Failure("\n  ".join([f"{len(lines)} errors in the settings", *lines] if lines[1:] else lines))


@click.command(
    epilog=examples(
        "logagg serve                                      on an embedded PostgreSQL",
        "logagg serve --config /etc/logagg/logagg.toml",
        "LOGAGG_DATABASE_URL=postgresql://logs@db/logs logagg serve",
    )
)
@config_option
@click.option("--insecure", is_flag=True, help="Listen in the open with nothing to protect it.")
@click.pass_context
def serve(ctx: click.Context, config: Path | None, insecure: bool) -> None:
    """Run the daemon.

    It receives records, stores them in PostgreSQL, and answers questions over HTTP. Settings come from the TOML
    file and from LOGAGG_* variables, which win; `logagg check-config` shows them. SIGHUP reads the file again.
    """
    if insecure:
        os.environ["LOGAGG_INSECURE"] = "true"  # for when they are read again, too
    settings = settings_from(config)
    from logagg.collector.config import load_settings
    from logagg.collector.daemon import serve as run

    ctx.exit(run(settings, partial(load_settings, config)))


@click.command(
    "check-config",
    epilog=examples("logagg check-config", "logagg check-config --config /etc/logagg/logagg.toml"),
)
@config_option
def check_config(config: Path | None) -> None:
    """Check the settings, and print them.

    Prints every setting with its value and where it comes from; or every error with its place. The files of TLS are
    read, too, and it is asked whether a listener is open to everybody. Exits with 0 when these settings are right in
    themselves, 2 when not.

    Whether they work here is not looked at: it connects to nothing, and asks for no port, folder or disk. `logagg db
    status` asks PostgreSQL, `logagg serve` tries it all, `logagg doctor` looks at a running daemon.
    """
    settings = settings_from(config)
    from logagg.collector.config import effective
    from logagg.collector.listening import exposed
    from logagg.collector.tls import TlsError, tls_of

    for rule in settings.alerts:
        if hint := rule.hint:
            note(f"warning: alert {rule.name}: {hint}")
    problems = []
    try:
        tls_of(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    except TlsError as error:
        problems.append(str(error))
    if problem := exposed(settings):
        if settings.insecure:
            note(f"warning: {problem}")
        else:
            problems.append(problem)
    if problems:
        raise _failure(problems)
    rows = [{"setting": each.name, "value": each.value, "from": each.place} for each in effective(settings, config)]
    with Screen(pager=True) as screen:
        screen.write(table(["setting", "value", "from"], rows, colour=False))
