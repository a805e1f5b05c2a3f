"""What requests and answers look like, as pydantic models: the checks and the OpenAPI document both come from here.

The routes of the two seed services keep the seeds' shapes; where a field is ours, its description says so.
"""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from logagg.query.hints import of_parameter
from logagg.query.kinds import EntryLevel, Interval, Level, Seed1Level, Since, Time, ago

_MOST_NAMES = 8
#: Unknown parameters of a request that are told; a body could bring any number.
_MOST_UNKNOWN = 20


class Parameters(BaseModel):
    """What a question may say: these parameters and no others, but for names that begin with `_`, which say nothing."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, given: Any) -> Any:
        """Refuse an unknown parameter: ignored, it would look as if it had been heeded, and more would be found."""
        names = given if isinstance(given, dict) else ()
        unknown = [name for name in names if name not in cls.model_fields and not name.startswith("_")]
        if wrong := [_unknown(name, list(cls.model_fields), given[name]) for name in unknown[:_MOST_UNKNOWN]]:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return given


def _unknown(name: str, known: list[str], value: Any) -> InitErrorDetails:
    if meant := of_parameter(name, known):
        text, told = "there is no parameter `{name}`: did you mean {meant}?", {"meant": meant}
    else:
        text, told = "there is no parameter `{name}`; there are: {known}", {"known": ", ".join(known) or "none"}
    problem = PydanticCustomError("unknown_parameter", text, {"name": name, **told})
    return InitErrorDetails(type=problem, loc=(name,), input=value)


class Asked(Parameters):
    """What the routes that read many records have in common."""

    stats: bool = Field(
        False, description="Say what the answer cost: in the header X-Logagg-Stats, and in an answer that is an object."
    )


class Filters(Asked):
    """Which records. All that is given must hold."""

    start_time: Time | None = Field(None, description="Not before this time, inclusive. Without a zone it is UTC.")
    end_time: Time | None = Field(None, description="Not after this time, inclusive. Without a zone it is UTC.")
    q: str | None = Field(None, description="The query language.", examples=['timeout -"connection reset"'])
    search: str | None = Field(None, description="Words that must all occur, in any order; nothing in it is syntax.")
    service: str | None = Field(None, description="Exactly this service.")
    level: Level | None = Field(None, description="Exactly this level.")
    host: str | None = Field(None, description="Exactly this host.")
    environment: str | None = Field(None, description="Exactly this environment.")
    source: str | None = Field(None, description="Exactly this source.")


class LogsQuery(Filters):
    """`GET /logs`."""

    limit: int = Field(1000, ge=1, le=10_000, description="Records in one answer.")
    cursor: str | None = Field(None, description="Where the page before ended; taken from its `Link` header.")
    order: Literal["newest", "oldest"] = Field("newest", description="Which come first, by timestamp and id.")


class ContextQuery(Asked):
    """`GET /logs/{id}/context`."""

    before: int = Field(10, ge=0, le=1000, description="How many records before it.")
    after: int = Field(10, ge=0, le=1000, description="How many records after it.")


class _Page(Filters):
    query: str | None = Field(None, description="Words that must all occur, in any order; nothing in it is syntax.")
    offset: int = Field(0, ge=0, description="Records to skip; `GET /logs` with its cursor is the faster way far down.")


def _clamp(value: int) -> int:
    return max(1, min(value, 1000))


class SearchQuery(_Page):
    """`GET /logs/search`."""

    limit: Annotated[int, AfterValidator(_clamp)] = Field(100, description="Records in one answer, 1 to 1000; clamped.")


class SearchBody(_Page):
    """`POST /logs/search`."""

    limit: int = Field(100, ge=1, le=1000, description="Records in one answer.")


def _by(value: str) -> str:
    names = value.split(",")
    if not all(map(str.strip, names)) or len(names) > _MOST_NAMES:
        raise ValueError(f"expected 1 to {_MOST_NAMES} names with commas between them, not {value[:100]!r}")
    return value


class AggregationsQuery(Filters):
    """`GET /logs/aggregations`."""

    by: Annotated[str, AfterValidator(_by)] = Field(
        "service,level", description="What to count by: 1 to 8 names, commas between."
    )
    of: str | None = Field(
        None,
        min_length=1,
        description="A field of numbers: each group gets how many it has, and min, max, avg, p50, p90, p95, p99.",
        examples=["duration_ms"],
    )
    interval: Interval | None = Field(
        None, description="Count each group by bins of time of this width; each row has the start of its bin as `time`."
    )
    limit: int | None = Field(
        None, ge=1, le=100_000, description="Only so many groups, those with most records; with all of their bins."
    )

    @property
    def names(self) -> list[str]:
        """The names of `by`."""
        return [name.strip() for name in self.by.split(",")]


class HistogramQuery(Filters):
    """`GET /logs/histogram`."""

    interval: Interval | None = Field(None, description="Width of a bin; without it, one that gives a readable number.")


class PatternsQuery(Filters):
    """`GET /logs/patterns`."""

    hours: int = Field(24, ge=1, le=87_600, description="How far back from end_time, where start_time is not given.")
    limit: int = Field(50, ge=1, le=1000, description="Patterns in the answer, the most frequent.")
    new_since: Since | None = Field(
        None,
        description="Only messages since then, compared with those before; new patterns first, then what rose most.",
    )

    def since(self, end: datetime) -> datetime | None:
        """Return `new_since` as a time, for a range with this end."""
        since: Any = self.new_since
        return ago(end, since) if isinstance(since, timedelta) else since


class LogRecord(BaseModel):
    """A record as it is read back."""

    id: int = Field(description="Below 2**53.")
    timestamp: datetime
    received_at: datetime
    level: Level
    service: str | None
    host: str | None
    environment: str | None
    source: str | None
    facility: int | None = Field(description="Syslog facility, 0 to 23.")
    message: str
    attributes: dict[str, Any] = Field(description="All other fields.")
    trace_id: str | None
    span_id: str | None


class Seed1Log(BaseModel):
    """One log of seed 1, to be stored. Keys besides these are kept as attributes."""

    model_config = ConfigDict(extra="allow")

    timestamp: Time
    level: Seed1Level
    message: str
    service: str

    def as_object(self) -> dict[str, Any]:
        """Return what `protocols.mapping.from_object` takes, with the time as RFC 3339."""
        return dict(self) | {"timestamp": self.timestamp.isoformat(), "level": self.level.value}


class LogEntry(BaseModel):
    """One log of seed 2, to be stored."""

    timestamp: Time | None = Field(None, description="Default: the time of receipt.")
    level: EntryLevel
    message: str
    source: str
    service: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    metadata: dict[str, Any] | None = None

    def as_object(self) -> dict[str, Any]:
        """Return what `protocols.mapping.from_object` takes: no key without a value, the time as RFC 3339."""
        given = {key: value for key, value in self if value is not None} | {"level": self.level.value}
        return given | ({"timestamp": self.timestamp.isoformat()} if self.timestamp else {})


class FoundEntry(BaseModel):
    """A record in the shape of seed 2, with ours behind it."""

    timestamp: datetime
    level: Level
    message: str
    source: str | None
    service: str | None
    trace_id: str | None
    span_id: str | None
    metadata: dict[str, Any] | None = Field(description="As it was sent; for records of other senders, all attributes.")
    id: int
    host: str | None
    environment: str | None
    received_at: datetime


class Stats(BaseModel):
    """What an answer cost."""

    batches: int = Field(description="Batches that may hold records of the time range.")
    skipped: dict[str, int] = Field(
        description="Batches not read, by the reason: a column or `filter` that cannot match, `order`, `counted`."
    )
    read: dict[Literal["open", "rows", "packed"], int] = Field(description="Batches read, by their form.")
    records: int = Field(description="Records in the batches read.")
    fetched_bytes: int = Field(description="Bytes that came from PostgreSQL for them.")
    cached_reads: int = Field(description="Reads of packed batches that needed no byte of it.")
    took_ms: float


class Answer(BaseModel):
    """What answers say of themselves."""

    incomplete: list[str] | None = Field(None, description="What could not be read; left out where all could.")
    stats: Stats | None = Field(None, description="Left out unless asked for.")


class SearchAnswer(Answer):
    """Answer of `/logs/search`."""

    logs: list[FoundEntry]
    total_count: int = Field(description="Records that match, whatever limit and offset.")
    took_ms: float


class ContextAnswer(Answer):
    """A record, and its neighbours of the same host, service and source; oldest first."""

    before: list[LogRecord]
    record: LogRecord
    after: list[LogRecord]


class Count(BaseModel):
    """How many records have these values; the keys are those of `by`."""

    model_config = ConfigDict(extra="allow")

    service: str | None = None
    level: Level | None = None
    time: datetime | None = Field(None, description="With `interval`: the start of the bin; else left out.")
    count: int
    numbers: int | None = Field(None, description="With `of`: how many numbers the group has; else left out, as below.")
    min: float | None = None
    max: float | None = None
    avg: float | None = None
    p50: float | None = Field(None, description="The least value that half of the numbers do not exceed.")
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None


class Bin(BaseModel):
    """One bar of the histogram: from start (inclusive) for one interval."""

    start: datetime
    total: int
    levels: dict[Level, int] = Field(description="Only the levels that occur.")


class HistogramAnswer(Answer):
    """Answer of `/logs/histogram`."""

    start: datetime | None
    end: datetime | None
    interval_seconds: float
    total: int = Field(description="Records that match, in bins or not.")
    before: int = Field(description="Records before the first bin: a few whose time is far from all others.")
    after: int = Field(description="Records after the last bin.")
    bins: list[Bin] = Field(description="Without gaps.")


class PatternAnswer(BaseModel):
    """A template of messages that differ only in their variable parts."""

    pattern: str = Field(description="Variable parts are `<*>`.")
    count: int
    first_seen: datetime
    last_seen: datetime
    services: list[str] = Field(max_length=10, description="Most frequent first.")
    example: str = Field(description="The newest message of this form.")
    levels: dict[Level, int]
    new: bool | None = Field(None, description="With `new_since`: not seen before it. Else left out, as the next two.")
    before: int | None = Field(None, description="How many in a window of the same length right before `new_since`.")
    growth: float | None = Field(None, description="How many times as many as before; null where there were none.")


class Alive(BaseModel):
    """Answer of `/` for programs."""

    message: str
    timestamp: datetime


class Health(BaseModel):
    """Answer of `/health`."""

    status: Literal["healthy", "unhealthy"]
    timestamp: datetime
    reason: str | None = Field(description="Why nothing can be stored; null when it can.")
    counters: dict[str, Any]


class Ready(BaseModel):
    """Answer of `/healthz` and `/readyz`."""

    status: Literal["ok", "ready", "not ready"]
    reason: str | None = None


class Running(BaseModel):
    """Answer of `/metrics` as JSON."""

    service: str
    timestamp: datetime
    status: Literal["running"]
    version: str
    counters: dict[str, Any]


class Problem(BaseModel):
    """Any refusal but 422: one text."""

    detail: str


class ValidationProblem(BaseModel):
    """One thing that does not fit, as pydantic names it."""

    type: str
    loc: list[str | int] = Field(description="Where: `query` or `body`, and the path in it.")
    msg: str
    input: Any = None
    ctx: dict[str, Any] | None = None


class ValidationProblems(BaseModel):
    """A refusal with status 422."""

    detail: list[ValidationProblem]
