"""Every setting of the daemon, declared once: name, type, default, unit and a sentence.

A setting `http_listen` is the key `http_listen` of the TOML file and the environment variable `LOGAGG_HTTP_LISTEN`; the
environment wins. Only `daemon.py`, `listening.py` and the command line read settings; other parts take plain values.
"""

from collections.abc import Mapping
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, ByteSize, Field, PlainSerializer, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from logagg.collector.alerts import Rule, read_rules, rules_text
from logagg.collector.networks import Networks, parse_allow
from logagg.collector.units import Address, DatabaseUrl, Duration, Keeps, Listen, Table, Zone, format_duration

if TYPE_CHECKING:
    from logagg.protocols.redaction import Redactor

PREFIX = "LOGAGG_"
#: Variables with our prefix that are no settings of the daemon: the client's, the tests', and where the file is.
NOT_SETTINGS = {
    "LOGAGG_CONFIG",
    "LOGAGG_URL",
    "LOGAGG_TOKEN",
    "LOGAGG_CA_FILE",
    "LOGAGG_CERT_FILE",
    "LOGAGG_KEY_FILE",
    "LOGAGG_TEST_DATABASE_URL",
    "LOGAGG_TEST_LOOP",
    "LOGAGG_TEST_TIMES",
}
MIB = 1 << 20
OVER_UDP = {"syslog_udp_listen", "gelf_udp_listen"}
_WITHOUT_ANSWERS = {"tcp_listen", "syslog_tcp_listen", "syslog_tls_listen", "syslog_udp_listen"}


class SettingsError(Exception):
    """The settings cannot be used; the text has one line for each error, with its place."""


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # what it is part of is not there
        return False


def _traced_to(value: object) -> object:
    if value and not str(value).startswith(("http://", "https://")):
        raise ValueError("no address of a receiver of OTLP over HTTP; expected such as http://127.0.0.1:4318")
    if value and not all(map(_installed, ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"))):
        raise ValueError(
            "OpenTelemetry is not installed: pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
        )
    return value or None


def _names(text: str) -> frozenset[str]:
    return frozenset(text.replace(",", " ").split())


def _check(setting: str, named: frozenset[str], known: set[str] | frozenset[str], what: str = "") -> None:
    if unknown := named - known:
        raise ValueError(f"{setting}: {', '.join(sorted(unknown))}: not of {what}{', '.join(sorted(known))}")


def _size(mib: float) -> ByteSize:
    return ByteSize(int(mib * MIB))


class Settings(BaseSettings):
    """The settings. Durations are texts such as `50ms`, `15m`, `7d`; sizes are texts such as `64MiB`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, validate_default=True, arbitrary_types_allowed=True
    )

    database_url: DatabaseUrl = Field(
        None, description="PostgreSQL to store in, as postgresql://user@host/database; unset: the embedded one."
    )
    reader_database_url: DatabaseUrl = Field(
        None, description="A read replica of it, from which questions read what is packed; unset: none."
    )
    data_dir: Path | None = Field(
        None,
        description="Folder of the journal, of batches that wait to be packed, and of the embedded PostgreSQL; unset: "
        "/var/lib/logagg for root, else the user's data folder.",
    )
    environment: str | None = Field(None, description="Environment of records that name none, such as production.")

    http_listen: Listen = Field(Address("127.0.0.1", 8000), description="HTTP: ingest, query, page, metrics.")
    tcp_listen: Listen = Field(Address("127.0.0.1", 5170), description="Newline-delimited JSON over TCP.")
    syslog_udp_listen: Listen = Field(Address("127.0.0.1", 5140), description="Syslog over UDP.")
    syslog_tcp_listen: Listen = Field(
        Address("127.0.0.1", 5140), description="Syslog over TCP, newline and octet-counted framing alike."
    )
    syslog_tls_listen: Listen = Field(
        None, description="Syslog over TLS (RFC 5425), usually on port 6514; needs tls_certificate."
    )
    relp_listen: Listen = Field(Address("127.0.0.1", 2514), description="RELP, rsyslog's omrelp.")
    forward_listen: Listen = Field(
        Address("127.0.0.1", 24224), description="Fluent Forward: fluent-bit, fluentd, Docker's fluentd driver."
    )
    forward_shared_key: SecretStr | None = Field(
        None, description="Key that senders of Fluent Forward have to prove they know; unset: anybody may send."
    )
    forward_max_frame: ByteSize = Field(
        _size(16), ge=1 << 16, le=256 * MIB, description="Longest message of Fluent Forward; more ends the connection."
    )
    gelf_udp_listen: Listen = Field(Address("127.0.0.1", 12201), description="GELF over UDP, in chunks too.")
    gelf_tcp_listen: Listen = Field(Address("127.0.0.1", 12201), description="GELF over TCP.")
    lumberjack_listen: Listen = Field(
        Address("127.0.0.1", 5044), description="Lumberjack: Filebeat and Logstash's output.logstash."
    )
    elasticsearch_version: str = Field(
        "8.19.0", description="Version that Elasticsearch's clients are told; Filebeat wants none older than itself."
    )
    syslog_zone: Zone = Field(
        ZoneInfo("UTC"), description="Time zone of syslog times that name none, such as Europe/Berlin."
    )

    auth_required: bool = Field(
        False, description="Whether every request over HTTP needs a token; without, from the first token on."
    )

    allow: str = Field(
        "",
        description="Networks from which a listener takes what is sent, such as `syslog_udp_listen=10.0.0.0/8 "
        "fd00::/8, *=192.168.0.0/16`; `*` is for those not named; unset: all.",
    )
    insecure: bool = Field(
        False, description="Whether listeners may be open to other machines with nothing to protect them."
    )
    limit_records: int | None = Field(
        None, ge=1, description="Records a second that one token, or one address without, may send; unset: any."
    )
    limit_bytes: ByteSize | None = Field(
        None, ge=1024, description="Bytes a second that one token, or one address without, may send; unset: any."
    )
    limit_burst: Duration = Field(
        timedelta(seconds=10), description="How long a time's worth of these may come at once."
    )

    tls_certificate: Path | None = Field(
        None, description="Certificate of the listeners over TLS, and those it was signed by, in PEM."
    )
    tls_key: Path | None = Field(None, description="Its key, in PEM; unset: it is in the same file.")
    tls_client_ca: Path | None = Field(
        None, description="Certificates in PEM, one of which must have signed the sender's; unset: nothing is asked."
    )
    tls_client_ca_listeners: str = Field(
        "", description="Of the listeners over TLS, those that ask for that, such as `relp_listen`; unset: all."
    )
    tls_listeners: str = Field(
        "", description="Listeners over TCP that are over TLS too, such as `http_listen, relp_listen`."
    )

    redact: str = Field(
        "",
        description="What is redacted before anything is stored, such as `email, card`; of url_password, bearer, jwt, "
        "aws_key, email, card.",
    )
    redact_patterns: Annotated[Table, NoDecode] = Field(
        {}, description="Regular expressions of your own for that, by name: a table in the file, else a JSON object."
    )

    multiline_listeners: str = Field(
        "",
        description="Listeners on which the lines of a stack trace become one record, such as `syslog_tcp_listen`; "
        "only those without acknowledgements.",
    )
    multiline_window: Duration = Field(
        timedelta(seconds=2), description="How long a record waits there for a line that continues it."
    )

    max_frame: ByteSize = Field(
        _size(1), ge=480, le=64 * MIB, description="Longest line or frame of a stream; more is cut and marked."
    )
    max_connections: int = Field(
        4096, ge=1, description="Connections of one listener at once, HTTP too; more are closed and counted."
    )
    max_connections_per_address: int | None = Field(
        None, ge=1, description="Of these, connections of one address; unset: any."
    )
    udp_receive_buffer: ByteSize = Field(_size(16), ge=4096, description="Receive buffer asked of the kernel for UDP.")
    http_max_body: ByteSize = Field(
        _size(64), ge=1024, le=1024 * MIB, description="Longest HTTP body, before and after decompression."
    )
    http_body_timeout: Duration = Field(
        timedelta(seconds=60), description="How long the body of an HTTP request may take to arrive."
    )

    buffer_records: int = Field(100_000, ge=1, description="Records that may wait for PostgreSQL; more is refused.")
    memory: ByteSize = Field(
        _size(512),
        ge=64 * MIB,
        description="What the daemon holds at most, about: what waits, open batches, packing, caches, queries.",
    )
    buffer_bytes: ByteSize | None = Field(
        None,
        ge=1 << 16,
        description="Bytes of records, as received, that may wait for PostgreSQL; unset: an eighth of memory.",
    )
    flush_records: int = Field(10_000, ge=1, le=65_536, description="Records of one transaction at most.")
    flush_interval: Duration = Field(
        timedelta(milliseconds=50), description="How long records that nobody waits for gather before a transaction."
    )
    flush_lanes: int = Field(3, ge=1, le=16, description="Transactions under way at once.")
    journal_size: ByteSize = Field(
        _size(1024),
        ge=0,
        description="Disk for records that PostgreSQL does not take, in a journal in data_dir; 0: none, they wait.",
    )
    journal_after: Duration = Field(
        timedelta(seconds=5), description="How long records wait for a PostgreSQL that is slow before they go there."
    )
    ack_timeout: Duration = Field(
        timedelta(seconds=10), description="How long an HTTP sender waits for COMMIT before it gets a 503."
    )

    batch_records: int = Field(65_536, ge=1, le=65_536, description="Records after which a batch is closed.")
    batch_age: Duration = Field(timedelta(hours=1), description="Age at which a batch is closed.")
    pack_lag: int = Field(
        32, ge=1, le=1000, description="Closed batches that may wait to be packed; while they do, no new one is opened."
    )
    rows_retention: Duration = Field(
        timedelta(days=7),
        gt=timedelta(0),
        description="How long packed records are kept as rows, too, by day; never longer than retention.",
    )
    rows_gin: bool = Field(
        False, description="Whether days that are over get GIN indexes, for full-text search in SQL of your own."
    )
    retention: Duration = Field(timedelta(days=30), gt=timedelta(0), description="How long records are kept at all.")
    retention_for: Annotated[Keeps, NoDecode] = Field(
        {},
        description='How long those of a service or an environment are, such as `{"service=audit": "365d"}`; the first '
        "that fits holds. A table in the file, else a JSON object.",
    )
    rows_retention_size: ByteSize | None = Field(
        None, ge=0, description="What rows may take; unset: no limit. The oldest days go first, today's stays."
    )
    retention_size: ByteSize | None = Field(
        None,
        ge=0,
        description="What packed records may take; unset: no limit. The oldest batches go first; SQL has their rows "
        "until the whole day goes.",
    )
    quarantine_size: ByteSize | None = Field(
        _size(256), ge=0, description="What the quarantine may take, kept for retention at most. The oldest go first."
    )

    query_timeout: Duration = Field(timedelta(seconds=30), description="Longest time of one query.")
    query_concurrency: int = Field(4, ge=1, le=64, description="Queries answered at once; more wait.")

    otel_endpoint: Annotated[str | None, BeforeValidator(_traced_to)] = Field(
        None,
        description="Where traces of the daemon go, by OTLP over HTTP, such as http://127.0.0.1:4318; unset: there are "
        "none. Needs the extra otel.",
    )
    canary_interval: Duration = Field(
        timedelta(0), description="How often a marker is sent through each listener and looked for; 0: never."
    )

    alerts: Annotated[tuple[Rule, ...], NoDecode, BeforeValidator(read_rules), PlainSerializer(rules_text)] = Field(
        (), description="What to tell webhooks of: tables [[alerts]] in the file, else a JSON array; see alerts.md."
    )
    page_url: str = Field(
        "", description="Address at which people reach the page, for links in alerts; unset: that of http_listen."
    )

    start_timeout: Duration = Field(
        timedelta(seconds=60),
        description="How long a daemon without a journal waits at start for PostgreSQL to answer.",
    )
    stop_timeout: Duration = Field(
        timedelta(seconds=30),
        description="How long a stopping daemon takes to store what it has received; the rest goes to the journal.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level of the daemon's own log."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="Form of the daemon's own log; auto: console on a terminal, else JSON."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_frame > self.waiting:
            raise ValueError(f"max_frame ({self.max_frame} bytes) is more than buffer_bytes ({self.waiting} bytes)")
        if "rows_retention" in self.model_fields_set and self.rows_retention > self.retention:
            rows, records = format_duration(self.rows_retention), format_duration(self.retention)
            raise ValueError(f"rows_retention ({rows}) is longer than retention ({records})")
        return self

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        streams = {name for name in Settings.model_fields if name.endswith("_listen")} - OVER_UDP
        _check("tls_listeners", self.over_tls, streams)
        if not self.tls_certificate and (wanting := [name for name in sorted(self.over_tls) if getattr(self, name)]):
            raise ValueError(f"{', '.join(wanting)} over TLS, and there is no tls_certificate")
        return self

    @model_validator(mode="after")
    def _certified(self) -> Self:
        named = _names(self.tls_client_ca_listeners)
        _check("tls_client_ca_listeners", named, self.over_tls, "those over TLS: ")
        if named and not self.tls_client_ca:
            raise ValueError("tls_client_ca_listeners: there is no tls_client_ca")
        return self

    @model_validator(mode="after")
    def _allowable(self) -> Self:
        _ = self.allowed
        return self

    @model_validator(mode="after")
    def _redactable(self) -> Self:
        _ = self.redactor
        return self

    @model_validator(mode="after")
    def _joinable(self) -> Self:
        _check("multiline_listeners", self.joined, _WITHOUT_ANSWERS)
        return self

    @property
    def redactor(self) -> "Redactor | None":
        """What redacts records; None when nothing shall be. Raises ValueError for rules that cannot be."""
        if not self.redact.strip() and not self.redact_patterns:
            return None
        from logagg.protocols.redaction import Redactor  # polars, which most commands do without

        return Redactor(sorted(_names(self.redact)), self.redact_patterns)

    @property
    def allowed(self) -> Mapping[str, Networks]:
        """Who may reach a listener, by its setting. Raises ValueError."""
        try:
            return parse_allow(self.allow, [name for name in Settings.model_fields if name.endswith("_listen")])
        except ValueError as error:
            raise ValueError(f"allow: {error}") from None

    def protected(self, listener: str) -> bool:
        """Whether not everybody who reaches a listener may send to it."""
        return bool(
            self.allowed[listener]
            or (listener == "http_listen" and self.auth_required)
            or (listener == "forward_listen" and self.forward_shared_key)
            or listener in self.by_certificate
        )

    @property
    def joined(self) -> frozenset[str]:
        """Settings of the listeners on which lines are joined."""
        return _names(self.multiline_listeners)

    @property
    def over_tls(self) -> frozenset[str]:
        """Settings of the listeners over TLS."""
        return _names(self.tls_listeners) | {"syslog_tls_listen"}

    @property
    def by_certificate(self) -> frozenset[str]:
        """Settings of the listeners whose senders have to show a certificate."""
        if not self.tls_client_ca:
            return frozenset()
        return _names(self.tls_client_ca_listeners) or self.over_tls

    @property
    def proving(self) -> frozenset[str]:
        """Settings of the listeners whose senders have to prove who they are, by a certificate or a key."""
        return self.by_certificate | ({"forward_listen"} if self.forward_shared_key else set())

    @property
    def share(self) -> int:
        """Bytes of one of the eight parts of the memory."""
        return self.memory // 8

    @property
    def waiting(self) -> int:
        """Bytes that may wait for PostgreSQL."""
        return self.share if self.buffer_bytes is None else self.buffer_bytes

    @classmethod
    def settings_customise_sources(  # noqa: D102  # pydantic-settings' own hook
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings
