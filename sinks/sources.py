"""The table of sources: who sends. Written every few seconds by each daemon, beside the transactions of records."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from logagg.sinks.connections import Connections
from logagg.sinks.errors import unavailable

#: Sources that the table holds; who comes after them is counted under the service OTHERS of its transport.
MOST: Final = 10_000
OTHERS: Final = "(others)"
#: The service of the canary: nobody misses it, its own metrics tell how it is.
CANARY: Final = "logagg-canary"
#: In so many minutes a source must have been seen until its silence is told. A usual interval starts at a minute or
#: less and grows by 3.25 at most with each pause, so by then it can be that of a job that runs once a month.
MINUTES: Final = 10
#: Characters of a name that are kept: an index takes no more than some 2,700 bytes of all together.
LONGEST_NAME: Final = 128

#: What a pause says of the usual one: a quarter, less where it is short, no more than ten times the usual. So the
#: pauses within a burst do not hide those between bursts, and one outage does not make the usual one long.
_USUAL: Final = """
case when {pause} <= 0 then s.usual_interval
    when s.usual_interval is null then greatest(0.001, least(60, {pause}))
    else greatest(0.001, s.usual_interval + 0.25 * least(1, {pause} / s.usual_interval)
        * (least({pause}, 10 * s.usual_interval) - s.usual_interval))
end
""".format(pause="extract(epoch from excluded.first_seen - s.last_seen)::float8")
_GAP: Final = "extract(epoch from excluded.first_seen - s.last_seen)::float8 > s.quiet_after"
#: Time since it was seen before, in units of the five minutes over which the rate is averaged.
_SPAN: Final = "least(100, greatest(0, extract(epoch from excluded.last_seen - s.last_seen)::float8 / 300))"

# In order, so that two daemons never wait for each other.
_ADD: Final = f"""
with given as (
    select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
        $7::bigint[], $8::bigint[], $9::float8[])
        as given (host, service, environment, transport, first_seen, last_seen, records, bytes, clock_skew)
), known as (
    select given.*, s.records is not null as known
    from given left join sources s using (host, service, environment, transport)
), placed as (
    select *, known or (select count(*) from sources) + count(*) filter (where not known)
        over (order by host, service, environment, transport rows unbounded preceding) <= $10 as fits
    from known
)
insert into sources as s
    (host, service, environment, transport, first_seen, last_seen, records, bytes, rate, clock_skew)
select case when fits then host else '' end, case when fits then service else $11 end,
    case when fits then environment else '' end, transport,
    min(first_seen), max(last_seen), sum(records), sum(bytes), sum(records) / 300.0, avg(clock_skew)
from placed group by 1, 2, 3, 4 order by 1, 2, 3, 4
on conflict (host, service, environment, transport) do update set
    first_seen = least(s.first_seen, excluded.first_seen),
    last_seen = greatest(s.last_seen, excluded.last_seen),
    records = s.records + excluded.records,
    bytes = s.bytes + excluded.bytes,
    rate = s.rate * exp(-{_SPAN}) + excluded.rate
        * case when {_SPAN} < 0.001 then 1 else (1 - exp(-{_SPAN})) / {_SPAN} end,
    clock_skew = s.clock_skew + 0.25 * (excluded.clock_skew - s.clock_skew),
    usual_interval = {_USUAL},
    minutes = s.minutes
        + case when date_trunc('minute', excluded.last_seen) > date_trunc('minute', s.last_seen) then 1 else 0 end,
    gaps = s.gaps + case when {_GAP} then 1 else 0 end,
    longest_gap = case when {_GAP}
        then greatest(s.longest_gap, extract(epoch from excluded.first_seen - s.last_seen)::float8)
        else s.longest_gap end
"""  # noqa: S608 - texts of ours

_SILENCE: Final = "extract(epoch from now() - last_seen)::float8"
# The average starts at 0: it is corrected for the time that it had, at least a minute.
_ALL: Final = f"""
select nullif(host, ''), nullif(service, ''), nullif(environment, ''), transport,
    extract(epoch from first_seen)::float8, extract(epoch from last_seen)::float8, records, bytes,
    rate * exp(-least(100, greatest(0, {_SILENCE} / 300)))
        / (1 - exp(-least(100, greatest(60, extract(epoch from now() - first_seen)::float8) / 300))),
    clock_skew, usual_interval, gaps, longest_gap, greatest(0, {_SILENCE}),
    coalesce({_SILENCE} > quiet_after and minutes >= $1 and service <> all ($2::text[]), false)
from sources order by records desc, host, service, environment, transport
"""  # noqa: S608 - texts of ours


_FORGET: Final = """
delete from sources
where ($1::text is null or host = $1) and ($2::text is null or service = $2)
    and ($3::text is null or environment = $3) and ($4::text is null or transport = $4)
"""


class Seen(NamedTuple):
    """What came from one source in some seconds."""

    host: str
    service: str
    environment: str
    transport: str
    #: Times of receipt, aware.
    first: datetime
    last: datetime
    records: int
    bytes: int
    #: Seconds from the time of a record to its receipt, the median.
    skew: float


class Source(NamedTuple):
    """What is known of one source; all spans in seconds."""

    host: str | None
    service: str | None
    environment: str | None
    transport: str
    first_seen: datetime
    last_seen: datetime
    records: int
    bytes: int
    #: Records a second, over some five minutes.
    rate: float
    clock_skew: float
    usual_interval: float | None
    gaps: int
    longest_gap: float | None
    silence: float
    #: Whether that is longer than is usual of it, as far as that is known.
    silent: bool


class Sources:
    """The table of sources, which all daemons of a database share. All methods raise StoreUnavailable."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def add(self, seen: Iterable[Seen]) -> None:
        """Add what was seen, each source once. It may be lost when the server crashes: no write waits for the disk."""
        columns = list(zip(*seen, strict=True))
        if not columns:
            return
        with unavailable():
            async with self._connections.writer() as con, con.transaction():
                await con.execute("set local synchronous_commit = off")
                await con.execute(_ADD, *columns, MOST, OTHERS)

    async def all(self) -> Sequence[Source]:
        """Return all, those with most records first."""
        with unavailable():
            async with self._connections.reader() as con:
                return [_source(row) for row in await con.fetch(_ALL, MINUTES, [OTHERS, CANARY])]

    async def forget(
        self, host: str | None, service: str | None, environment: str | None, transport: str | None
    ) -> int:
        """Drop those of these names, None being any and empty none; return how many. One that sends comes again."""
        with unavailable():
            async with self._connections.writer() as con:
                done: str = await con.execute(_FORGET, host, service, environment, transport)
        return int(done.split()[1])

    async def expire(self, kept: timedelta) -> None:
        """Drop those that were not seen for so long."""
        with unavailable():
            async with self._connections.writer() as con:
                await con.execute("delete from sources where last_seen < now() - $1::interval", kept)


def _source(row: Sequence[Any]) -> Source:
    first, last = (datetime.fromtimestamp(each, UTC) for each in row[4:6])
    host, service, environment, transport = row[:4]
    return Source(host, service, environment, transport, first, last, *row[6:])
