"""The command `logagg`: the group of all commands, and how it ends.

A command's module is imported when the command is used; no module imports anything heavy at its
top. Whatever goes wrong is one line on standard error and exit code 2; Ctrl-C is 130, a closed pipe is silent.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import click

from logagg.cli.group import SuggestingGroup


class _Place(NamedTuple):
    """Where a command is, and the first sentence of its help: the help of all of them imports none."""

    module: str
    name: str
    help: str


#: The commands, in the order of the help.
_COMMANDS = {
    "serve": _Place("serving", "serve", "Run the daemon."),
    "check-config": _Place("serving", "check_config", "Check the settings, and print them."),
    "search": _Place("searching", "search", "Find records, and print them like a log: the newest last."),
    "tail": _Place("tailing", "tail", "Print records as they come, until Ctrl-C."),
    "show": _Place("showing", "show", "Show one record in full."),
    "aggregate": _Place("counting", "aggregate", "Count matching records by fields."),
    "histogram": _Place("counting", "histogram", "Draw matching records over time."),
    "patterns": _Place("patterning", "patterns", "Show the forms of matching messages."),
    "sources": _Place("sources", "sources", "Show who sends."),
    "alerts": _Place("alerts", "alerts", "Look at the alerts of the settings, and try them."),
    "export": _Place("exporting", "export", "Write all matching records to a file."),
    "send": _Place("sending", "send", "Send lines as records."),
    "quarantine": _Place("quarantine", "quarantine", "Look at what could not become a record, and try it again."),
    "token": _Place("tokens", "token", "Say who may send and read over HTTP."),
    "doctor": _Place("doctor", "doctor", "Ask a daemon whether it is well."),
    "db": _Place("database", "db", "Make, update and look at the database itself."),
}


class Logagg(SuggestingGroup):
    """The group of all commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in _COMMANDS:
            return None
        place = _COMMANDS[cmd_name]
        command = getattr(import_module(f"logagg.cli.{place.module}"), place.name)
        assert isinstance(command, click.Command)  # noqa: S101 -- for mypy
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.help) for name, place in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; end quietly when its reader is gone or the operator stops it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _discard_stdout()
            return ctx.exit(0)
        except KeyboardInterrupt:
            return ctx.exit(130)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run with the arguments of the process unless given; print a failure as one line."""
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = 2
        except click.UsageError as error:
            click.echo(f"logagg: {error.format_message()} ({_where_more(error)})", err=True)
            code = 2
        except click.ClickException as error:
            click.echo(f"logagg: {error.format_message()}", err=True)
            code = error.exit_code
        except click.Abort:
            code = 130
        sys.exit(code if isinstance(code, int) else 0)


def _where_more(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx else "logagg"
    asks = error.ctx is not None and any(each.name == "query" for each in error.ctx.command.params)
    if asks and isinstance(error, click.NoSuchOption):
        return f"a query that begins with - follows the options and --; see `{path} --help`"
    return f"see `{path} --help`"


def _discard_stdout() -> None:
    """Point standard output nowhere, so that nothing complains when the interpreter flushes it."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return  # a standard output that is no file


@click.command(
    cls=Logagg,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100},
    epilog=(
        "\b\nThe first steps:\n"
        "  logagg serve                          run the daemon\n"
        "  echo hello | logagg send              send a record\n"
        "  logagg search hello                   find it\n\n"
        'Completion: eval "$(_LOGAGG_COMPLETE=bash_source logagg)"; also zsh_source and fish_source.'
    ),
)
@click.version_option(package_name="logagg", message="logagg %(version)s")
def cli() -> None:
    """Collect logs into your own PostgreSQL, and find them again."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run `logagg` and exit."""
    cli.main(args=None if argv is None else list(argv), prog_name="logagg")
    raise AssertionError  # main always exits
