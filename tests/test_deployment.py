"""Dockerfile, compose file and systemd unit, checked as far as that goes without a container engine or systemd."""

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from logagg.collector.config import load_settings
from logagg.collector.settings import Settings
from logagg.collector.units import parse_duration

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
ROOMS = ("protocols", "sinks", "query", "collector", "cli")
VARIABLES = {f"LOGAGG_{name.upper()}" for name in Settings.model_fields}


def default(setting: str) -> Any:
    return Settings.model_fields[setting].default


def run(*command: str | Path, **options: Any) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, stdin=subprocess.DEVNULL, **options
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


# --- Dockerfile ------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Return (instruction, argument) of the Dockerfile, comments dropped and continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest))
    return found


def image_environment() -> dict[str, str]:
    texts = [rest for name, rest in stages()[-1] if name == "ENV"]
    return dict(pair.split("=", 1) for text in texts for pair in text.split())


def test_dockerfile_passes_its_linter() -> None:
    assert run(BIN / "hadolint", "--no-color", ROOT / "Dockerfile") == ""


def test_image_runs_as_a_user_without_power() -> None:
    users = [rest for name, rest in stages()[-1] if name == "USER"]
    # A number: an orchestrator can tell that it is not root.
    assert [re.fullmatch(r"[1-9]\d+:[1-9]\d+", user) is not None for user in users] == [True]
    # SIGTERM reaches the daemon itself, not a shell around it.
    assert [json.loads(rest) for name, rest in stages()[-1] if name in {"ENTRYPOINT", "CMD"}] == [["logagg"], ["serve"]]


def test_every_listener_can_be_reached_in_the_image() -> None:
    listeners = {
        f"LOGAGG_{name.upper()}": f"0.0.0.0:{field.default.port}"
        for name, field in Settings.model_fields.items()
        if name.endswith("_listen") and field.default
    }
    environment = {name: value for name, value in image_environment().items() if name.startswith("LOGAGG_")}
    assert environment == {**listeners, "LOGAGG_DATA_DIR": "/var/lib/logagg", "LOGAGG_INSECURE": "true"}
    exposed = {port for name, rest in stages()[-1] if name == "EXPOSE" for port in rest.split()}
    assert exposed == {
        f"{value.rpartition(':')[2]}/{'udp' if '_UDP_' in name else 'tcp'}" for name, value in listeners.items()
    }


@pytest.fixture
def answering() -> Iterator[tuple[list[str], dict[str, int], int]]:
    """Serve on a port of its own: the paths that were asked for, the status of each path, and the port."""
    asked: list[str] = []
    statuses: dict[str, int] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(statuses.get(self.path, 404))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield asked, statuses, server.server_port
        server.shutdown()
        thread.join()


def test_image_healthcheck_follows_healthz(answering: tuple[list[str], dict[str, int], int]) -> None:
    asked, statuses, port = answering
    (healthcheck,) = [rest for name, rest in stages()[-1] if name == "HEALTHCHECK"]
    command = json.loads(healthcheck[healthcheck.index("CMD ") + 4 :])
    assert command[:2] == ["python", "-c"]

    def exit_code(listen: str) -> int:
        environment = {**os.environ, "LOGAGG_HTTP_LISTEN": listen}
        check = [sys.executable, *command[1:]]
        return subprocess.run(check, env=environment, check=False, capture_output=True, timeout=30).returncode

    statuses["/healthz"] = 200
    assert exit_code(f"0.0.0.0:{port}") == 0
    statuses["/healthz"] = 503
    assert exit_code(f"0.0.0.0:{port}") == 1
    assert exit_code("0.0.0.0:1") == 1  # nobody listens
    assert asked == ["/healthz"] * 2


def build_context(target: Path) -> None:
    """Copy what `docker build .` would send: .dockerignore leaves out all but what it names after a `!`."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert (rules[0], rules[-1]) == ("*", "**/__pycache__")
    for name in [rule.removeprefix("!") for rule in rules[1:-1]]:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def build_steps() -> list[str]:
    """Return the commands of the first stage, in order."""
    return [
        command.strip() for name, rest in stages()[0] if name == "RUN" for command in rest.replace("\n", "").split("&&")
    ]


def build(folder: Path, steps: list[str], **variables: str) -> None:
    """Follow steps of the first stage: what is /src there is `src` in the folder, and what is /opt/logagg is `opt`."""
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONWARNINGS": "default",
        **variables,
    }
    for step in steps:
        command = step.replace("/opt/logagg", str(folder / "opt"))
        run("sh", "-eu", "-c", command, cwd=folder / "src", env=environment)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Follow the first stage of the Dockerfile in a clean folder and return it.

    One thing differs, for speed and to need no network: the environment borrows the dependencies of the one that the
    tests run in, and setuptools too. (A line in a .pth file adds a folder without that folder's own .pth files, so the
    editable install of the working tree stays out of sight.)
    """
    folder = tmp_path_factory.mktemp("image")
    (folder / "src").mkdir()
    build_context(folder / "src")
    make, download, *install = build_steps()
    assert "pip download" in download
    build(folder, [make])
    packages = sysconfig.get_path("purelib", vars={"base": str(folder / "opt")})
    Path(packages, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    build(folder, install, PIP_NO_BUILD_ISOLATION="0")  # pip's way to say that the option is on
    return folder


def room_files(root: Path) -> set[str]:
    return {
        f"logagg/{path.relative_to(root)}"
        for room in ROOMS
        for path in (root / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.skipif("TEST_INDEX" not in os.environ, reason="wants 100 MB of packages: set TEST_INDEX=1")
def test_build_needs_no_more_than_the_lock(tmp_path: Path) -> None:
    """As it is, but that pip may have downloaded something before, and that nothing is unpacked."""
    (tmp_path / "src").mkdir()
    build_context(tmp_path / "src")
    make, download, install, _ = (step.replace("--no-cache-dir ", "") for step in build_steps())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    build(tmp_path, [make, download, f"{install} --dry-run"], EXTRAS=",".join(extras))


def test_build_refuses_what_the_lock_does_not_know(tmp_path: Path) -> None:
    """The step that downloads, with an index of one package in place of pypi.org."""
    wheel = tmp_path / "stranger-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("stranger-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: stranger\nVersion: 1\n")
        archive.writestr("stranger-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    right = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (tmp_path / "src" / ".ci").mkdir(parents=True)

    def follow(lock: str) -> None:
        (tmp_path / "src" / ".ci" / "lock.txt").write_text(lock)
        build(tmp_path, build_steps()[1:2], PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))

    follow(f"stranger==1 --hash=sha256:{right}")
    with pytest.raises(AssertionError, match="DO NOT MATCH THE HASHES"):
        follow(f"stranger==1 --hash=sha256:{right[::-1]}")
    with pytest.raises(AssertionError, match="Hashes are required"):
        follow("stranger==1")


def test_image_gets_every_file_of_the_rooms_and_nothing_else(built: Path) -> None:
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(built / "opt")}))
    found = {path.relative_to(packages) for path in (packages / "logagg").rglob("*") if path.is_file()}
    assert {str(path) for path in found if "__pycache__" not in path.parts} == room_files(ROOT)


def test_site_packages_get_logagg_only(built: Path) -> None:
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(built / "opt")}))
    names = {path.name for path in packages.iterdir()} - {"borrowed.pth"}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert names == {"logagg", f"logagg-{version}.dist-info"}


def test_what_was_installed_runs(built: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version in run(built / "opt" / "bin" / "logagg", "--version", cwd=built)
    modules = sorted(
        name.removesuffix(".py").replace("/", ".")
        for name in room_files(ROOT)
        if name.endswith(".py") and not name.endswith("__main__.py")
    )
    code = f"import {', '.join(modules)}, logagg.cli.main; print(logagg.cli.main.__file__)"
    assert str(built) in run(built / "opt" / "bin" / "python", "-c", code, cwd=built)


# --- docker-compose.yml ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    content = YAML(typ="safe").load(ROOT / "docker-compose.yml")
    return dict(content["services"])


def test_compose_file_fits_the_compose_specification() -> None:
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml")


def test_compose_file_holds_no_password_and_known_settings_only(services: dict[str, Any]) -> None:
    given = {**services["postgres"]["environment"], **services["logagg"]["environment"]}
    passwords = {name: value for name, value in given.items() if "PASSWORD" in name}
    assert set(passwords) == {"POSTGRES_PASSWORD", "PGPASSWORD"}
    assert all(value.startswith("${POSTGRES_PASSWORD:?") for value in passwords.values())
    assert {name for name in given if name.startswith("LOGAGG_")} <= VARIABLES


def test_compose_publishes_every_port_of_the_image_on_this_machine_only(services: dict[str, Any]) -> None:
    exposed = {port for name, rest in stages()[-1] if name == "EXPOSE" for port in rest.split()}
    published = {re.sub(r"^\$\{BIND_ADDRESS:-127\.0\.0\.1\}:(\d+):\1/", r"\1/", p) for p in services["logagg"]["ports"]}
    assert published == exposed
    assert "ports" not in services["postgres"]


def test_compose_waits_for_postgres_and_leaves_time_to_stop(services: dict[str, Any]) -> None:
    assert services["logagg"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert parse_duration(services["logagg"]["stop_grace_period"]) > default("stop_timeout")


def test_compose_healthcheck_follows_readyz(
    services: dict[str, Any], answering: tuple[list[str], dict[str, int], int]
) -> None:
    asked, statuses, port = answering
    kind, program, *arguments = services["logagg"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    check = [sys.executable, *(argument.replace("8000", str(port)) for argument in arguments)]
    for status, code in ((200, 0), (503, 1)):
        statuses["/readyz"] = status
        assert subprocess.run(check, check=False, capture_output=True, timeout=30).returncode == code
    assert asked == ["/readyz"] * 2


# --- systemd ---------------------------------------------------------------------------------------------------------


def unit() -> dict[str, str]:
    """Return the last value of each directive of the unit."""
    text = (ROOT / "systemd" / "logagg.service").read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


@pytest.fixture
def installed_unit(tmp_path: Path) -> Path:
    """Return a copy of the unit that names the logagg of the environment the tests run in."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed (Debian: apt install systemd)")
    text = (ROOT / "systemd" / "logagg.service").read_text()
    copy = tmp_path / "logagg.service"
    copy.write_text(text.replace("/opt/logagg/bin", str(BIN)))
    return copy


def test_systemd_finds_no_fault_in_the_unit(installed_unit: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", installed_unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_no_fault_in_the_socket(installed_unit: Path) -> None:
    path = shutil.copy(ROOT / "systemd" / "logagg.socket", installed_unit.parent)
    done = subprocess.run(
        ["systemd-analyze", "verify", path, installed_unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("no_variables")
def test_socket_unit_has_each_address_that_is_listened_on_by_default() -> None:
    text = (ROOT / "systemd" / "logagg.socket").read_text()
    given = re.findall(r"^Listen(Stream|Datagram)=(.*)$", text, re.MULTILINE)
    found = sorted((kind == "Datagram", address) for kind, address in given)
    settings = load_settings().model_dump()
    wanted = [("udp" in name, address) for name, address in settings.items() if name.endswith("_listen") and address]
    assert found == sorted(wanted)


def test_systemd_calls_the_unit_well_hardened(installed_unit: Path) -> None:
    # 0 is perfect, 10 is open. Without CapabilityBoundingSet it is 3.5, and 1.8 without ProtectSystem.
    page = (ROOT / "docs" / "operations.md").read_text()
    said = re.search(r"`systemd-analyze security logagg` gives the service (\d\.\d)", page)
    assert said
    threshold = round(float(said[1]) * 10)
    run("systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", installed_unit)


def test_unit_leaves_time_to_start_and_to_stop() -> None:
    directives = unit()
    assert directives["Type"] == "notify"
    assert seconds(directives["TimeoutStopSec"]) > default("stop_timeout")
    assert seconds(directives["TimeoutStartSec"]) > default("start_timeout")


def seconds(text: str) -> timedelta:
    """Read a time span of systemd, in the units that ours and theirs share."""
    return parse_duration(text.replace("min", "m"))


def unit_environment() -> dict[str, str]:
    text = (ROOT / "systemd" / "logagg.service").read_text()
    return dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE))


def test_unit_uses_known_variables_and_the_state_directory() -> None:
    assert unit_environment()["LOGAGG_DATA_DIR"] == f"/var/lib/{unit()['StateDirectory']}"
    assert set(re.findall(r"LOGAGG_\w+", (ROOT / "systemd" / "logagg.service").read_text())) <= VARIABLES


def test_daemon_loads_without_memory_that_is_writable_and_executable() -> None:
    assert unit()["MemoryDenyWriteExecute"] == "yes"
    # prctl(2), PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN: what systemd does, where the kernel has it (6.3).
    code = """
import ctypes
import sys
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):
    sys.exit("no PR_SET_MDWE")
import logagg.collector.daemon
"""
    environment = {**os.environ, **unit_environment()}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    if "no PR_SET_MDWE" in done.stderr:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LOGAGG_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_variables")
def test_example_settings_are_settings(tmp_path: Path) -> None:
    example = ROOT / "systemd" / "logagg.toml"
    assert load_settings(example) == load_settings()
    tried = tmp_path / "logagg.toml"
    tried.write_text(re.sub(r"^#(?=\w+ = )", "", example.read_text(), flags=re.MULTILINE))
    assert load_settings(tried).environment == "production"
