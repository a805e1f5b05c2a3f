"""The documentation tells what the program is: settings, commands, metrics, help, links; and the quick start works."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from logagg.cli.main import cli
from logagg.collector.config import effective, load_settings
from logagg.collector.metrics import Metrics
from logagg.collector.settings import NOT_SETTINGS, Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])
ALL = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)


class Block(NamedTuple):
    """A fenced block: where it stands, its language, its text."""

    place: str
    language: str
    text: str


def blocks_of(path: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")
    for match in re.finditer(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start()) + 1
        body = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        yield Block(f"{path.relative_to(ROOT)}:{line}", match[2], body)


BLOCKS = [block for path in PAGES for block in blocks_of(path)]
SHELL = [block for block in BLOCKS if block.language == "sh"]


def by_place(blocks: list[Block]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", blocks, ids=[block.place for block in blocks])


# --- What there is stands there --------------------------------------------------------------------------------------


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LOGAGG_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_variables")
def test_the_table_of_settings_is_true() -> None:
    rows = [
        f"| `{each.name}` | {f'`{each.value}`' if each.value else ''} | {each.description} |"
        for each in effective(load_settings())
    ]
    expected = "\n".join(["| setting | default | |", "|---|---|---|", *rows])
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    table = re.search(r"^\| setting \|.*?(?=\n\n)", page, re.MULTILINE | re.DOTALL)
    assert table, "docs/operations.md has no table of settings"
    assert table[0] == expected, f"the table of settings in docs/operations.md must be\n\n{expected}\n"


def commands(group: click.Group, words: tuple[str, ...] = ("logagg",)) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        yield (*words, name)
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


@pytest.mark.parametrize("command", [" ".join(words) for words in commands(cli)])
def test_every_command_is_documented(command: str) -> None:
    assert re.search(rf"\b{command}\b", ALL)


@pytest.mark.parametrize("metric", sorted(family.name for family in Metrics().registry.collect()))
def test_every_metric_is_documented(metric: str) -> None:
    assert re.search(rf"\b{metric}(_total)?\b", ALL)


def test_every_variable_in_the_documentation_exists() -> None:
    known = NOT_SETTINGS | {f"LOGAGG_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bLOGAGG_[A-Z_]*[A-Z]\b", ALL)) <= known


@pytest.mark.parametrize("page", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text)
    assert not [target for target in targets if "://" not in target and not leads_somewhere(page, target)]


def leads_somewhere(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    return path.exists() and (not anchor or anchor in anchors(path))


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings as the usual hosts make them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- Blocks ----------------------------------------------------------------------------------------------------------


@by_place(BLOCKS)
def test_a_block_is_what_it_says(block: Block) -> None:
    assert block.language, "a fenced block names its language; text for none"
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "python":
        compile(block.text, block.place, "exec")
    elif block.language == "sh":
        subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, timeout=30)


def calls(text: str) -> list[list[str]]:
    """Return the arguments of each call of logagg in a shell text."""
    text = re.sub(r"(^|\s)#.*$", "", text.replace("\\\n", " "), flags=re.MULTILINE)
    inner = [words for part in re.findall(r"\$\(([^()]*)\)", text) for words in calls(part)]
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    found: list[list[str]] = []
    command: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set("();<>|&\n"):
            at = [n for n, each in enumerate(command) if each.rpartition("/")[2] == "logagg"]
            if at and all(each in {"sudo", "exec"} or "=" in each for each in command[: at[0]]):
                found.append(command[at[0] + 1 :])
            command = []
        else:
            command.append(word)
    return found + inner


def test_calls_are_found() -> None:
    text = """\
x=1 .venv/bin/logagg search 'a | b' \\
  --since 1h | wc -l   # logagg this is none
psql "$(logagg db url)" && logagg check-config > out
cp logagg there
"""
    found = [["search", "a | b", "--since", "1h"], ["check-config"], ["db", "url"]]
    assert calls(text) == found


@by_place([block for block in SHELL if calls(block.text)])
def test_calls_of_logagg_in_a_block_can_be_parsed(block: Block) -> None:
    for words in calls(block.text):
        command: click.Command = cli
        context = click.Context(cli, info_name="logagg", **cli.context_settings)
        rest = words
        while rest and isinstance(command, click.Group) and not rest[0].startswith("-"):
            found = command.get_command(context, rest[0])
            assert found, f"logagg has no command {rest[0]!r}"
            command, rest = found, rest[1:]
        context = click.Context(command, info_name=" ".join(words), resilient_parsing=True, **cli.context_settings)
        command.make_parser(context).parse_args(list(rest))  # an option that is not there raises, with its name


def test_help_is_what_the_program_prints() -> None:
    shown = [block for block in BLOCKS if re.match(r"\$ logagg .*--help\n", block.text)]
    assert shown
    for block in shown:
        call, _, expected = block.text.partition("\n")
        program = [sys.executable, "-m", "logagg.cli", *shlex.split(call)[2:]]
        done = subprocess.run(program, env={**os.environ, "COLUMNS": "100"}, capture_output=True, text=True, check=True)
        assert expected.strip() == done.stdout.strip(), block.place


# --- The quick start -------------------------------------------------------------------------------------------------

PORTS = {name: value.port for name, value in load_settings() if name.endswith("_listen") and value}


def quick_start() -> list[str]:
    """Return the shell blocks below "## Quick start"; the first is the one that starts the daemon."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## Quick start$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, "README.md has no section `## Quick start`"
    found = re.findall(r"^```sh\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    assert len(found) > 1, "the quick start has a block that starts the daemon and some that use it"
    assert "make run" in found[0]
    return found


def free_ports() -> dict[int, int]:
    """Return a free port, for TCP and UDP, in place of each default one."""
    with ExitStack() as stack:
        chosen = {}
        for port in set(PORTS.values()):
            tcp = stack.enter_context(socket.socket())
            tcp.bind(("127.0.0.1", 0))
            udp = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            udp.bind(tcp.getsockname())
            chosen[port] = tcp.getsockname()[1]
        return chosen


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the tree with the environment that the tests run in as its `.venv`."""
    copy = tmp_path / "logagg"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT, copy, ignore=ignored)
    shutil.copytree(ROOT / ".ci", copy / ".ci")
    (copy / ".venv").symlink_to(sys.prefix)
    if subprocess.run(["make", "-q", ".venv/run"], cwd=copy, capture_output=True, check=False).returncode:
        pytest.skip("this environment is not one that `make test` has made: `make run` would install into it")
    return copy


@pytest.fixture
def surroundings() -> Iterator[tuple[dict[int, int], dict[str, str]]]:
    """Return free ports, and variables that keep the quick start away from a real daemon and its data."""
    ports = free_ports()
    # Not in pytest's folder: as root, the embedded PostgreSQL runs as another user, who cannot reach that.
    with tempfile.TemporaryDirectory(prefix="logagg-", dir="/tmp", ignore_cleanup_errors=True) as data:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("LOGAGG_")}
        variables |= {f"LOGAGG_{name.upper()}": f"127.0.0.1:{ports[port]}" for name, port in PORTS.items()}
        variables |= {"LOGAGG_DATA_DIR": data, "LOGAGG_URL": f"http://127.0.0.1:{ports[8000]}"}
        # A reader has no activated environment.
        own = str(Path(sys.executable).parent)
        variables["PATH"] = os.pathsep.join(part for part in variables["PATH"].split(os.pathsep) if part != own)
        yield ports, variables


def wait_until_ready(url: str, daemon: subprocess.Popen[str], log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end and daemon.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):  # noqa: S310  # http, on this machine
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"the daemon is not ready:\n{log.read_text()}")


def test_the_quick_start_works_as_it_stands(
    checkout: Path, surroundings: tuple[dict[int, int], dict[str, str]], tmp_path: Path
) -> None:
    ports, variables = surroundings
    start, *steps = [re.sub(r"\b(8000|5170|5140)\b", lambda m: str(ports[int(m[1])]), each) for each in quick_start()]
    log = tmp_path / "daemon.log"
    with log.open("w") as out:
        daemon = subprocess.Popen(
            ["bash", "-eu", "-c", start], cwd=checkout, env=variables, stdout=out, stderr=out, text=True,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_until_ready(variables["LOGAGG_URL"], daemon, log)
        for step in steps:
            done = subprocess.run(
                ["bash", "-eu", "-o", "pipefail", "-c", step], cwd=checkout, env=variables, capture_output=True,
                text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert done.returncode == 0, f"{step}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGINT)  # Ctrl-C, for make and the daemon alike
        daemon.wait(60)
    assert "Traceback" not in log.read_text()
