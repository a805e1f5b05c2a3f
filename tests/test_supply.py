"""What logagg is built and run with: the lock fits pyproject.toml, and nothing in it forbids to pass it on."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, GROUPS = PYPROJECT["project"], PYPROJECT["dependency-groups"]
#: What may be passed on with a program under any terms, by SPDX.
PERMISSIVE = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MPL-2.0", "PSF-2.0", "Python-2.0",
    "Zlib",
}  # fmt: skip
#: How packages that do not speak SPDX yet say the same.
NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def read(name: str) -> dict[Requirement, list[str]]:
    """Return what a lock pins, each with its hashes."""
    text = (ROOT / ".ci" / name).read_text().replace("\\\n", "")
    entries = [line.split("--hash=") for line in text.splitlines() if not line.startswith("#")]
    return {Requirement(pin): [each.strip() for each in hashes] for pin, *hashes in entries}


def members(group: str) -> list[Requirement]:
    found = []
    for each in GROUPS[group]:
        found += [Requirement(each)] if isinstance(each, str) else members(each["include-group"])
    return found


RUNTIME = [Requirement(each) for each in PROJECT["dependencies"]]
EXTRAS = [Requirement(each) for extra in PROJECT["optional-dependencies"].values() for each in extra]
#: What leads to each lock.
ROOTS = {
    "lock.txt": [*RUNTIME, *EXTRAS, *members("build")],
    "lock-dev.txt": [*RUNTIME, *EXTRAS, *members("dev")],
}
LOCKS = pytest.mark.parametrize("name", ROOTS)


def closure(roots: list[Requirement]) -> set[NormalizedName]:
    """Return the names of all that these need, by the metadata of what is installed."""
    found: set[tuple[NormalizedName, str]] = set()
    waiting = [(canonicalize_name(root.name), extra) for root in roots for extra in ("", *root.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for needed in map(Requirement, metadata.requires(name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), more) for more in ("", *needed.extras)]
    return {name for name, _ in found}


def test_each_direct_dependency_has_a_lowest_version() -> None:
    direct = {*ROOTS["lock.txt"], *ROOTS["lock-dev.txt"]}
    assert not [str(each) for each in direct if [bound.operator for bound in each.specifier] != [">="]]


def test_what_builds_the_wheel_is_locked_with_it() -> None:
    assert members("build") == [Requirement(each) for each in PYPROJECT["build-system"]["requires"]]


@LOCKS
def test_a_lock_pins_all_by_version_and_hash_and_names_no_place(name: str) -> None:
    for entry, hashes in read(name).items():
        assert [bound.operator for bound in entry.specifier] == ["=="], f"{entry} is not pinned"
        assert hashes, f"{entry} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), f"a hash of {entry} is none"
        assert entry.url is None
    assert not re.findall(r"^.*(?:://|--index|--find|^-).*$", (ROOT / ".ci" / name).read_text(), re.MULTILINE)


@LOCKS
def test_a_lock_satisfies_the_project(name: str) -> None:
    pins = read(name)
    for wanted in ROOTS[name]:
        found = [each for each in pins if canonicalize_name(each.name) == canonicalize_name(wanted.name)]
        assert found, f"{wanted} is not in {name}: run `make lock`"
        versions = [bound.version for each in found for bound in each.specifier]
        assert all(map(wanted.specifier.contains, versions)), f"{name} has {versions} for {wanted}: run `make lock`"


@LOCKS
def test_a_lock_holds_all_that_the_project_leads_to_and_no_more(name: str) -> None:
    """As far as it can be told here: what is meant for another Python or platform is not installed."""
    pins = {canonicalize_name(each.name): each for each in read(name) if each.marker is None or each.marker.evaluate()}
    needed = closure(ROOTS[name])
    if not all(pins[each].specifier.contains(metadata.version(each)) for each in needed & pins.keys()):
        pytest.skip("the versions that are installed are not those of the lock")
    assert pins.keys() == needed, "run `make lock`"


def test_development_and_operation_have_the_same_versions() -> None:
    development = read("lock-dev.txt")
    assert not [str(entry) for entry, hashes in read("lock.txt").items() if development.get(entry) != hashes]


def licences(package: str) -> set[str]:
    """Return the licences of an installed package, by SPDX where that can be told."""
    said = metadata.metadata(package)
    if "License-Expression" in said:
        return set(re.findall(r"[\w.+-]+", said["License-Expression"])) - {"AND", "OR"}
    classifiers = [
        each.rpartition(" :: ")[2] for each in said.get_all("Classifier", []) if each.startswith("License ::")
    ]
    texts = classifiers or re.split(" AND | OR ", said["License"] or "nothing")
    return {NAMES.get(text, text) for text in texts}


@pytest.mark.parametrize("package", sorted(closure(ROOTS["lock.txt"])))
def test_a_package_may_be_passed_on_with_logagg(package: str) -> None:
    assert not (unknown := licences(package) - PERMISSIVE), f"{package} is under {unknown}"
