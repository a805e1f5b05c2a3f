"""The rules of alerts, as the settings have them: tables `[[alerts]]` in the file."""

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from logagg.collector.units import Duration, format_duration
from logagg.collector.wording import plain

_NAME = re.compile(r"[\w.-]{1,100}")
#: What a new pattern is looked for in, unless the rule says otherwise.
ERRORS = "level>=error"
Unit = Literal["records", "seconds", "patterns"]


def _at_least(least: timedelta) -> AfterValidator:
    def check(span: timedelta) -> timedelta:
        if span < least:
            raise ValueError(f"has to be at least {format_duration(least)}")
        return span

    return AfterValidator(check)


class Rule(BaseModel):
    """One alert: what is looked for, how often, and who is told. Exactly one of the three conditions is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    query: str = ""
    #: So many records that match within `window`, or more.
    threshold: int | None = Field(None, ge=1)
    #: No record that matches for so long.
    silence: Annotated[Duration, _at_least(timedelta(seconds=1))] | None = None
    #: A pattern of messages within `window` that the day before did not have.
    new_pattern: bool = False
    window: Annotated[Duration, _at_least(timedelta(seconds=1))] = timedelta(minutes=5)
    every: Annotated[Duration, _at_least(timedelta(milliseconds=100))] = timedelta(minutes=1)
    #: The path of it, or a header, is often what lets us in: neither is ever shown.
    webhook: SecretStr
    headers: dict[str, SecretStr] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("expected 1 to 100 letters, digits, dots, hyphens and underscores")
        return name

    @field_validator("webhook")
    @classmethod
    def _address(cls, webhook: SecretStr) -> SecretStr:
        try:
            parts = urlsplit(webhook.get_secret_value())
            fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            fine = False
        if not fine:
            raise ValueError("no address of a webhook; expected https://host/path")
        return webhook

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"{name!r} is no name of a header")
            if not value.get_secret_value().isprintable():
                raise ValueError(f"the value of {name} holds what no header can")
        return headers

    @field_validator("query")
    @classmethod
    def _readable(cls, query: str) -> str:
        from logagg.query.errors import QueryError
        from logagg.query.language import parse  # polars, which most commands do without

        try:
            parse(query)
        except QueryError as error:
            raise ValueError(error.problem) from None
        return query

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        given = [name for name in ("threshold", "silence", "new_pattern") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"has {' and '.join(given) or 'no condition'}; expected threshold, silence or new_pattern")
        if self.silence and "window" in self.model_fields_set:
            raise ValueError("has silence and window; the silence is the window")
        return self

    @property
    def span(self) -> timedelta:
        """The time that is looked at."""
        return self.silence or self.window

    @property
    def asked(self) -> str:
        """The query that is asked; empty for all records."""
        return self.query or (ERRORS if self.new_pattern else "")

    @property
    def unit(self) -> Unit:
        """What is counted."""
        return "seconds" if self.silence else "patterns" if self.new_pattern else "records"

    @property
    def hint(self) -> str:
        """What its query may have meant by names that are no columns, but read like one; empty when there are none."""
        from logagg.query import misspelt  # polars, which most commands do without

        return misspelt.hint_on(misspelt.fields_of(self.query)) if self.query else ""

    @property
    def condition(self) -> str:
        """What makes it fire, in words."""
        span = format_duration(self.span)
        if self.silence:
            return f"no record for {span}"
        return f"a new pattern in {span}" if self.new_pattern else f"at least {self.threshold} records in {span}"


class WrongRules(ValueError):
    """Alerts that cannot be: the number of each, from 1, and what is wrong with it."""

    def __init__(self, wrong: Sequence[tuple[int, str]]) -> None:
        super().__init__("; ".join(problem for _, problem in wrong))
        self.wrong = wrong


def read_rules(value: object) -> object:
    """Read the tables of the file, or JSON of the environment. Raises ValueError; WrongRules has every mistake."""
    if isinstance(value, str):
        try:
            value = json.loads(value or "[]")
        except ValueError as error:
            raise ValueError(f"no JSON: {error}") from None
    if not isinstance(value, list | tuple):
        raise ValueError("expected tables [[alerts]], or a JSON array of objects")
    rules: list[Rule] = []
    wrong: list[tuple[int, str]] = []
    for number, each in enumerate(value, 1):
        try:
            rule = Rule.model_validate(each)
        except ValidationError as error:
            wrong += [(number, f"{_which(number, each)}: {problem}") for problem in _problems(error)]
            continue
        if rule.name in {other.name for other in rules}:
            wrong.append((number, f"{_which(number, each)}: two alerts are named {rule.name!r}"))
        rules.append(rule)
    if wrong:
        raise WrongRules(wrong)
    return tuple(rules)


def _which(number: int, given: Any) -> str:
    name = given.get("name") if isinstance(given, dict) else None
    return f"alert {number} ({name})" if isinstance(name, str) else f"alert {number}"


def _problems(error: ValidationError) -> list[str]:
    """Return what is wrong, without what was given: it may be a secret."""
    said = []
    for each in error.errors(include_url=False, include_input=False):
        place = ".".join(map(str, each["loc"]))
        message = "unknown key" if each["type"] == "extra_forbidden" else plain(each)
        said.append(f"{place}: {message}" if place else message)
    return said


def rules_text(rules: Sequence[Rule]) -> str:
    """Write rules for people: their names."""
    return ", ".join(rule.name for rule in rules)
