"""What would be given to a package index: the sdist, the wheel made from it, and what they say of themselves."""

import email
import email.message
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("protocols", "sinks", "query", "collector", "cli")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: As `pip` and `build` do it, in this environment.
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(what: str, source: Path, target: Path) -> Path:
    command = [sys.executable, "-W", "default", "-c", BUILD, f"build_{what}", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source package, made from a copy of the tree."""
    folder = tmp_path_factory.mktemp("package")
    copytree(ROOT, folder / "tree", ignore=ignore_patterns(".*", "__pycache__", "*.egg-info", "build"))
    return build("sdist", folder / "tree", folder)


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> zipfile.ZipFile:
    """The wheel, made from the unpacked source package alone."""
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent, filter="data")
    source = sdist.parent / f"logagg-{PROJECT['version']}"
    return zipfile.ZipFile(build("wheel", source, sdist.parent))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(wheel.read(name))


def test_the_sdist_has_what_the_wheel_is_made_of(wheel: zipfile.ZipFile) -> None:
    wanted = {
        f"logagg/{path.relative_to(ROOT)}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == wanted


def test_the_wheel_says_what_it_is(metadata: email.message.Message) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("logagg", PROJECT["version"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Requires-Python"] == ">=3.11"
    payload = metadata.get_payload()
    assert isinstance(payload, str)
    assert payload.startswith("# logagg")
    assert set(metadata.get_all("Provides-Extra", [])) == set(re.findall(r"^(\w+) = \[", extras(), re.MULTILINE))


def extras() -> str:
    text = (ROOT / "pyproject.toml").read_text()
    return text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
