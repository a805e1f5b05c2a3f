"""Settings from where they are: the TOML file and the environment, with the place of each and of each mistake."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ByteSize, ValidationError

from logagg.collector.settings import NOT_SETTINGS, PREFIX, Settings, SettingsError


class Effective(NamedTuple):
    """One setting as it stands."""

    name: str
    #: As it would be written in the TOML file; empty for unset or off.
    value: str
    #: `default`, the file, or the environment variable.
    place: str
    description: str


def config_path(given: Path | None) -> Path | None:
    """Return the settings file: the one given, else `LOGAGG_CONFIG`, else none."""
    named = os.environ.get("LOGAGG_CONFIG")
    return given or (Path(named) if named else None)


def load_settings(given: Path | None = None) -> Settings:
    """Read the settings from the file (given or `LOGAGG_CONFIG`) and the environment.

    Raises SettingsError with a line for each error, each with its place.
    """
    path = config_path(given)
    values = _read_toml(path) if path else {}
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError("\n".join(_error_lines(error, path))) from None


def effective(settings: Settings, given: Path | None = None) -> list[Effective]:
    """Return every setting with its value and the place it was read from, in the order of declaration."""
    path = config_path(given)
    in_file = _read_toml(path) if path else {}
    texts = settings.model_dump()  # durations, addresses and zones as text
    return [
        Effective(
            name, _text(getattr(settings, name), texts[name]), _place(name, in_file, path), field.description or ""
        )
        for name, field in Settings.model_fields.items()
    ]


def unknown_variables() -> list[str]:
    """Return the variables of the environment that have our prefix and are no setting: likely typing errors."""
    known = NOT_SETTINGS | {PREFIX + name.upper() for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None


def _error_lines(error: ValidationError, path: Path | None) -> list[str]:
    in_file = _read_toml(path) if path else {}
    lines = []
    for each in error.errors(include_url=False):
        name = str(each["loc"][0]) if each["loc"] else ""
        message = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            message = "unknown setting"
        place = _place(name, in_file, path) if name else str(path or "environment")
        lines.append(f"{place}: {name}: {message}" if name else f"{place}: {message}")
    return lines


def _place(name: str, in_file: dict[str, Any], path: Path | None) -> str:
    variable = PREFIX + name.upper()
    if variable in os.environ:
        return variable
    if path is None or name not in in_file:
        return "default"
    text = path.read_text(encoding="utf-8")
    found = re.search(rf"^\s*\[*\s*[\"']?{re.escape(name)}\b", text, re.MULTILINE)
    return f"{path}:{text.count(chr(10), 0, found.end()) + 1}" if found else str(path)


def _text(value: object, dumped: object) -> str:
    if isinstance(value, ByteSize):
        return value.human_readable()
    # A password belongs neither on a screen nor into a log.
    return "" if dumped is None else re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", str(dumped))
