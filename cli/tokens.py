"""`logagg token`: who may do what over HTTP."""

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from logagg.cli.group import SuggestingGroup
from logagg.cli.options import examples
from logagg.cli.output import JsonArray, JsonLines, local_time, table
from logagg.cli.postgres import check_schema, place_of, place_options, run
from logagg.cli.terminal import Failure, note

#: As in `sinks.tokens`, which is not imported for a help.
SCOPES = ("ingest", "query", "admin")
_COLUMNS = ("name", "scopes", "services", "environments", "created_at", "revoked_at")


def _scopes(context: click.Context, param: click.Parameter, value: str) -> list[str]:
    """Read scopes with commas between."""
    scopes = list(dict.fromkeys(value.replace(",", " ").split()))
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise click.BadParameter(f"{(unknown or [value])[0]!r} is none of {', '.join(SCOPES)}")
    return scopes


@click.group(cls=SuggestingGroup, epilog=examples("logagg token create --name web-1 --scope ingest"))
def token() -> None:
    """Say who may send and read over HTTP.

    As long as there has never been a token, everybody may. Daemons know of a change within seconds.
    """


@token.command(
    epilog=examples(
        "logagg token create --name fluent-bit --scope ingest",
        "logagg token create --name shop --scope ingest,query --service shop --service shop-admin",
        "logagg token create --name prometheus --scope admin",
    )
)
@click.option("--name", required=True, help="What the token is called in lists and logs; used once.")
@click.option(
    "--scope", callback=_scopes, metavar="SCOPES", required=True, help="What for, with commas: ingest, query, admin."
)
@click.option("--service", "services", multiple=True, help="Only records of this service; may be given again.")
@click.option("--environment", "environments", multiple=True, help="Only of this environment; may be given again.")
@place_options
def create(
    name: str,
    scope: list[str],
    services: tuple[str, ...],
    environments: tuple[str, ...],
    config: Path | None,
    database_url: str | None,
) -> None:
    """Make a token, and print it: only now, for what is kept is its hash.

    The scope ingest is to send records. The scope query is to read records, and the sources that sent them. The scope
    admin is to read metrics, as `logagg doctor` does, to see and test alerts, and to forget sources; it neither sends
    nor reads records.

    With --service or --environment, only such records may be sent and read; one that names none gets that of the token,
    if there is one only.
    """
    for each in (name, *services, *environments):
        if not each.strip() or not each.isprintable():
            raise Failure(f"{each!r} is no name: it is empty, or holds what cannot be printed")
    work = partial(_create, name, scope, services, environments)
    secret, first = run(place_of(config, database_url), work, create=True)
    click.echo(secret)
    note("daemons know the token within 2 seconds")
    if first:
        note("from then on every request needs a token, but for /healthz and /readyz")


@token.command("list", epilog=examples("logagg token list", "logagg token list -o jsonl"))
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "jsonl", "json"]),
    default="text",
    help="The form of what is printed.",
)
@place_options
def list_(output: str, config: Path | None, database_url: str | None) -> None:
    """List tokens, those revoked too, the oldest first; never what they are."""
    found = run(place_of(config, database_url), _list, create=False)
    if not found and output == "text":
        note("there are no tokens: every request is let in; see `logagg token create --help`")
        return
    click.echo(_listing(found, output), nl=False)


@token.command(epilog=examples("logagg token revoke web-1"))
@click.argument("name")
@place_options
def revoke(name: str, config: Path | None, database_url: str | None) -> None:
    """End a token.

    Its name stays taken, and requests go on needing tokens, be it the last one.
    """
    if not run(place_of(config, database_url), partial(_revoke, name), create=False):
        raise Failure(f"there is no token {name!r}, or it was revoked; see `logagg token list`")
    click.echo(f"revoked {name}: daemons refuse it within seconds")


async def _create(name: str, scope: list[str], services: Any, environments: Any, connection: Any) -> tuple[str, bool]:
    from logagg.sinks import schema, tokens

    if await schema.applied(connection):
        await check_schema(connection)
    else:
        await schema.migrate(connection)
    first = not await tokens.listed(connection)
    return await tokens.create(connection, name, scope, services, environments), first


async def _list(connection: Any) -> list[dict[str, Any]]:
    from logagg.sinks import tokens

    await check_schema(connection)
    return await tokens.listed(connection)


async def _revoke(name: str, connection: Any) -> bool:
    from logagg.sinks import tokens

    await check_schema(connection)
    return await tokens.revoke(connection, name)


def _listing(found: list[dict[str, Any]], output: str) -> str:
    if output == "text":
        return table(_COLUMNS, [{name: _text(value) for name, value in row.items()} for row in found], colour=False)
    form = JsonLines() if output == "jsonl" else JsonArray()
    rows = [row | {name: row[name] and row[name].isoformat() for name in _COLUMNS[-2:]} for row in found]
    return form.head + form.page(rows) + form.tail()


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(value)
    return local_time(value, None) if isinstance(value, datetime) else value or ""
