"""The shape of the repository: imports point left, the rooms are packages, files stay short."""

import ast
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: From left to right: each may import itself and what stands left of it.
ROOMS = ("protocols", "sinks", "query", "collector", "cli")
OTHER_NAMES = {
    "CHANGELOG.md", "CONTRIBUTING.md", "Dockerfile", "LICENSE", "Makefile", "README.md", "benchmarks", "docs",
    "docker-compose.yml", "mkdocs.yml", "pyproject.toml", "systemd", "tests",
}  # fmt: skip
#: What a room must do without, so that it can be used and tested without it.
FOREIGN = {
    "protocols": {
        "aiohttp", "asyncio", "asyncpg", "logging", "os", "prometheus_client", "pydantic_settings", "select",
        "selectors", "socket", "socketserver", "ssl", "structlog", "time",
    },
    "sinks": {"aiohttp", "click", "http", "prometheus_client", "pydantic_settings"},
    "query": {"asyncpg", "click", "pydantic_settings", "socket"},
    "collector": {"click"},
    "cli": set(),  # `doctor` reads metrics with their own parser
}  # fmt: skip
MAX_LINES = 400


def python_files(folder: str) -> list[Path]:
    return sorted(p for p in (ROOT / folder).rglob("*.py") if "__pycache__" not in p.parts)


def module_name(path: Path) -> str:
    return ".".join(["logagg", *path.relative_to(ROOT).with_suffix("").parts])


def imported(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Yield line and absolute name of every import, also of those written as text for importlib."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("logagg."):
            yield node.lineno, node.value


def imports_of(path: Path) -> list[tuple[str, str]]:
    """Return (place, imported name) for each import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return [(f"{path.relative_to(ROOT)}:{line}", name) for line, name in imported(tree, module_name(path))]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_left(room: str) -> None:
    right = {f"logagg.{name}" for name in [*ROOMS[ROOMS.index(room) + 1 :], "tests", "benchmarks"]}
    wrong = [
        f"{place} imports {name}"
        for path in python_files(room)
        for place, name in imports_of(path)
        if ".".join(name.split(".")[:2]) in right
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import logagg.cli.main", "logagg.cli.main"),
        ("from logagg import cli", "logagg.cli"),
        ("from logagg.cli import main", "logagg.cli.main"),
        ("from ..cli.main import main", "logagg.cli.main"),
        ("from .. import cli", "logagg.cli"),
        ("def f():\n    if x:\n        import logagg.cli", "logagg.cli"),
        ("import_module('logagg.cli.main')", "logagg.cli.main"),
    ],
)
def test_every_way_of_importing_is_seen(code: str, name: str) -> None:
    assert name in {found for _, found in imported(ast.parse(code), "logagg.sinks.store")}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_does_without_what_is_foreign_to_it(room: str) -> None:
    wrong = [
        f"{place} imports {name}"
        for path in python_files(room)
        for place, name in imports_of(path)
        if name.split(".")[0] in FOREIGN[room]
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_daemon_and_the_command_line_read_settings() -> None:
    wrong = [
        f"{place} imports {name}"
        for room in ROOMS[:-1]
        for path in python_files(room)
        for place, name in imports_of(path)
        if name.startswith("logagg.collector.settings")
        and path.name not in {"config.py", "daemon.py", "listening.py", "reload.py", "settings.py", "wiring.py"}
    ]
    assert not wrong, "\n".join(wrong)


def test_parsers_have_no_clock() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} asks the clock"
        for path in python_files("protocols")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in {"now", "utcnow", "today"}
    ]
    assert not wrong, "\n".join(wrong)


def test_files_stay_short() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in (*ROOMS, "benchmarks")
        for path in python_files(folder)
    }
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_typed_and_a_namespace(room: str) -> None:
    assert (ROOT / room / "py.typed").is_file()
    assert not (ROOT / room / "__init__.py").exists()


def test_no_init_makes_the_root_a_package() -> None:
    assert not (ROOT / "__init__.py").exists()


def test_every_folder_with_code_is_packaged() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for room in ROOMS for path in python_files(room)}
    assert sorted(setuptools["packages"]) == sorted({".".join(["logagg", *folder.parts]) for folder in folders})
    assert setuptools["package-dir"] == {f"logagg.{room}": room for room in ROOMS}


def test_only_known_names_stand_at_the_top() -> None:
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()]
    names = {
        path.name
        for path in ROOT.iterdir()
        if not path.name.startswith(".") and not any(fnmatch(path.name, pattern) for pattern in ignored)
    }
    assert names <= OTHER_NAMES | set(ROOMS)
