"""A hook of mkdocs: pages of the site that are made from the program, and those that stand above docs/.

Commands come from click, settings from their declaration, routes from the OpenAPI document of a daemon that is started
for it, without a database.
"""

import asyncio
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import aiohttp
import click
import structlog
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from logagg.cli.main import cli
from logagg.collector.config import effective, load_settings
from logagg.collector.daemon import run
from logagg.collector.reload import Reloading
from logagg.collector.settings import Settings

if TYPE_CHECKING:
    from logagg.collector.units import Address

ROOT = Path(__file__).parents[1]
#: Pages above docs/ that are part of the site.
ABOVE = ("CHANGELOG.md", "CONTRIBUTING.md")
#: Nobody listens there: the daemon goes on without its database.
NOWHERE = "postgresql://logagg@127.0.0.1:1/logagg"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files in docs/."""
    for name in [name for name in os.environ if name.startswith("LOGAGG_")]:
        del os.environ[name]  # defaults are shown, not what this shell happens to set
    pages: dict[str, Callable[[], str]] = {
        "reference-commands.md": commands,
        "reference-settings.md": settings,
        "reference-http.md": routes,
    }
    for name, make in pages.items():
        files.append(File.generated(config, name, content=make()))
    for name in ABOVE:
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links that lead out of docs/ stay on the site."""
    text = markdown.replace("](../README.md", "](index.md")
    return re.sub(rf"\]\(\.\./(?={'|'.join(map(re.escape, ABOVE))})", "](", text)


def commands() -> str:
    """Return a page with the help of every command."""
    parts = [
        "# Commands\n\nWhat `--help` prints; [how to ask in the terminal](command-line.md) explains the usual ones."
    ]
    for words, command in _commands(cli, ("logagg",)):
        context = click.Context(command, info_name=" ".join(words), terminal_width=100, max_content_width=100)
        level = "#" * min(len(words) + 1, 4)
        parts.append(f"{level} {' '.join(words)}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts) + "\n"


def _commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            if (found := command.get_command(context, name)) and not found.hidden:
                yield from _commands(found, (*words, name))


def settings() -> str:
    """Return a page with every setting."""
    rows = [
        f"| `{each.name}` | {f'`{each.value}`' if each.value else ''} | {each.description} |"
        for each in effective(load_settings())
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "In the TOML file that `--config` or `LOGAGG_CONFIG` names, or in the environment, which wins: there",
            "`database_url` is `LOGAGG_DATABASE_URL`; [more about it](operations.md#settings).",
            "",
            "| setting | default | |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def routes() -> str:
    """Return a page with every route of a daemon with default settings."""
    document = asyncio.run(_openapi())
    parts = [
        "# HTTP",
        "A daemon has this as a document of OpenAPI 3.1 at `/openapi.json`, and as pages at `/docs` and `/redoc`.",
    ]
    tags: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tags.setdefault(operation["tags"][0], []).append(_route(f"{method.upper()} {path}", operation))
    parts += [f"## {tag.capitalize()}\n\n" + "\n\n".join(each) for tag, each in tags.items()]
    return "\n\n".join(parts) + "\n"


def _route(name: str, operation: Mapping[str, Any]) -> str:
    lines = [f"### `{name}`", "", f"{operation['summary']}."]
    if operation["parameters"]:
        lines += ["", "| parameter | in | type | |", "|---|---|---|---|"]
        lines += [_parameter(each) for each in operation["parameters"]]
    kinds = operation.get("requestBody", {}).get("content", {})
    if kinds:
        lines += ["", f"Takes {', '.join(f'`{kind}`' for kind in kinds)}."]
    lines += ["", "| status | |", "|---|---|"]
    lines += [f"| {status} | {_cell(answer['description'])} |" for status, answer in operation["responses"].items()]
    return "\n".join(lines)


def _parameter(each: Mapping[str, Any]) -> str:
    schema = each.get("schema", {})
    kinds = [part.get("type", "") for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    name = f"`{each['name']}`" + (", required" if each.get("required") else "")
    text = each.get("description") or schema.get("description") or ""
    return f"| {name} | {each['in']} | {' or '.join(dict.fromkeys(filter(None, kinds)))} | {_cell(text)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


async def _openapi() -> dict[str, Any]:
    """Ask a daemon, which is not connected to any database."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # that it has none is no news
    listening: asyncio.Future[Mapping[str, Address]] = asyncio.get_running_loop().create_future()
    stopping = asyncio.Event()
    off: dict[str, Any] = {name: "" for name in Settings.model_fields if name.endswith("_listen")}
    with TemporaryDirectory() as folder:
        made = Settings(**off | {"database_url": NOWHERE, "data_dir": folder, "http_listen": "127.0.0.1:0"})
        async with asyncio.TaskGroup() as group:
            group.create_task(run(Reloading(made, lambda: made), stopping, listening.set_result))
            try:
                url = f"http://{(await listening)['http_listen']}/openapi.json"
                async with aiohttp.ClientSession() as http, http.get(url) as answer:
                    answer.raise_for_status()
                    document: dict[str, Any] = await answer.json()
            finally:
                stopping.set()
    return document
