"""Settings from where they are: the TOML file and the environment, with the place of each and of each mistake."""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ByteSize, ConfigDict, ValidationError, create_model
from pydantic_settings import EnvSettingsSource

from logagg.collector.alerts import WrongRules
from logagg.collector.settings import NOT_SETTINGS, PREFIX, Settings, SettingsError
from logagg.collector.wording import plain


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
    in_file = _read_toml(path) if path else {}
    try:
        return Settings(**in_file)
    except ValidationError as error:
        lines = [*_field_lines(error, in_file, path), *_rule_lines(error, in_file, path)]
        raise SettingsError("\n".join(lines)) from None


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


def _field_lines(error: ValidationError, in_file: dict[str, Any], path: Path | None) -> Iterator[str]:
    """Yield what is wrong with settings by themselves."""
    for each in error.errors(include_url=False):
        if not each["loc"]:
            continue
        name = str(each["loc"][0])
        if isinstance(wrong := each.get("ctx", {}).get("error"), WrongRules):
            for number, problem in wrong.wrong:
                yield f"{_place(name, in_file, path, number)}: {name}: {problem}"
            continue
        field = Settings.model_fields.get(name)
        message = plain(each, field.annotation) if field else "unknown setting"
        yield f"{_place(name, in_file, path)}: {name}: {message}"


def _rule_lines(error: ValidationError, in_file: dict[str, Any], path: Path | None) -> Iterator[str]:
    """Yield what is wrong with settings beside each other, which pydantic looks at only when each is right by itself.

    A rule that looks at a setting which is wrong by itself says nothing.
    """
    wrong = {str(each["loc"][0]) for each in error.errors(include_url=False) if each["loc"]}
    given = in_file | EnvSettingsSource(Settings)()
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in Settings.model_fields.items()}
    alone = create_model("Alone", __config__=ConfigDict(arbitrary_types_allowed=True), **fields)
    right = alone.model_validate({name: given[name] for name in given.keys() & fields.keys() - wrong})
    settings = Settings.model_construct(_fields_set=right.model_fields_set, **dict(right))
    for name in wrong & fields.keys():
        del settings.__dict__[name]
    for rule in Settings.__pydantic_decorators__.model_validators:
        try:
            getattr(settings, rule)()
        except AttributeError:  # what it looks at is wrong
            continue
        except ValueError as problem:
            yield f"{_place_of_text(str(problem), in_file, path)}: {problem}"


def _place_of_text(text: str, in_file: dict[str, Any], path: Path | None) -> str:
    """Return the place of the setting that a text begins with, where it has one."""
    place = _place(re.split(r"\W", text, maxsplit=1)[0], in_file, path)
    return str(path or "environment") if place == "default" else place


def _place(name: str, in_file: dict[str, Any], path: Path | None, number: int = 0) -> str:
    """Return the place of a setting; with a number, that of this one of its tables, from 1, if they are written so."""
    variable = PREFIX + name.upper()
    if variable in os.environ:
        return variable
    if path is None or name not in in_file:
        return "default"
    text = path.read_text(encoding="utf-8")
    found = re.search(rf"^\s*\[*\s*[\"']?{re.escape(name)}\b", text, re.MULTILINE)
    tables = list(re.finditer(rf"^\s*\[\[\s*[\"']?{re.escape(name)}[\"']?\s*\]\]", text, re.MULTILINE))
    found = tables[number - 1] if 0 < number <= len(tables) else found
    return f"{path}:{text.count(chr(10), 0, found.end()) + 1}" if found else str(path)


def _text(value: object, dumped: object) -> str:
    if isinstance(value, ByteSize):
        return value.human_readable()
    # A password belongs neither on a screen nor into a log.
    return "" if dumped is None else re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", str(dumped))
