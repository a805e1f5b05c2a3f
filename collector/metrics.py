"""The metrics of the daemon, in one registry.

The books: received + replayed = stored + duplicate + quarantined + dropped + journaled + in flight.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from itertools import chain
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from logagg.collector.buffer import RingBuffer
from logagg.query.errors import QueryLimit
from logagg.sinks.journal import Journal
from logagg.sinks.upkeep import TASKS, Upkeep

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_RECORDS = (1, 10, 100, 1000, 5000, 10_000, 20_000, 65_536)
#: Why records are dropped. What Prometheus has not seen at 0 it does not see rise.
_REASONS = ("buffer full", "no commit in time")


class OfTransport(NamedTuple):
    """The counters of one transport that every chunk touches; to look them up by label each time is slow."""

    received: Counter
    received_bytes: Counter
    stored: Counter
    quarantined: Counter
    ack_seconds: Histogram


class Metrics:
    """All that the daemon counts. Names follow the conventions of Prometheus; docs/metrics.md explains each."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        Gauge("logagg_build_info", "The version that runs.", ("version",), registry=self.registry).labels(
            version("logagg")
        ).set(1)
        transport = ("transport",)
        self.received = self._counter("records_received", "Records and undecodable frames received.", transport)
        self.received_bytes = self._counter(
            "received_bytes", "Bytes received; of HTTP bodies, after decompression.", transport
        )
        self.stored = self._counter("records_stored", "Records committed to PostgreSQL.", transport)
        self.quarantined = self._counter("records_quarantined", "Records and frames put in quarantine.", transport)
        self.dropped = self._counter(
            "records_dropped", "Records given up, by reason; their senders were told where the protocol can.",
            ("transport", "reason"),
        )  # fmt: skip
        self.duplicate = self._counter(
            "records_duplicate", "Records that came again, by the key they came with.", transport
        )
        self.journaled = self._counter("records_journaled", "Records put into the journal.", transport)
        self.replayed = self._counter("records_replayed", "Records out of the journal, stored.", transport)
        self.journal_failures = self._counter("journal_failures", "Times that the journal took nothing.", ())
        self.lost = self._counter(
            "datagrams_lost", "Datagrams that the kernel dropped, its receive buffer being full; not in the books.",
            transport,
        )  # fmt: skip
        self.cut = self._counter("frames_cut", "Frames longer than max_frame, cut and marked.", transport)
        self.redacted = self._counter("redacted", "Texts redacted, by the rule that found them.", ("rule",))
        self.connections = Gauge("logagg_connections", "Connections open now.", transport, registry=self.registry)
        self.connections_refused = self._counter(
            "connections_refused", "Connections closed at once, by reason.", ("transport", "reason")
        )
        self.limited = self._counter("limited", "Times that a source was over its limit.", ("source",))
        self.refused_requests = self._counter(
            "requests_refused",
            "Requests without a token that may do it, or from an address not in `allow`.",
            ("status",),
        )
        for status in ("401", "403"):
            self.refused_requests.labels(status)
        self.handshake_failures = self._counter("tls_handshake_failures", "TLS handshakes that failed.", ())
        self.flush_seconds = Histogram(
            "logagg_flush_seconds", "Duration of one transaction.", buckets=_SECONDS, registry=self.registry
        )
        self.flush_records = Histogram(
            "logagg_flush_records", "Records in one transaction.", buckets=_RECORDS, registry=self.registry
        )
        self.flush_failures = self._counter("flush_failures", "Transactions that failed and were tried again.", ())
        self.ack_seconds = Histogram(
            "logagg_ack_seconds", "From receipt to the ack of what a sender waits for.", transport, buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        task = ("task",)
        self.task_time = Gauge(
            "logagg_maintenance_last_run_seconds", "When a task of maintenance last ended, in Unix time.", task,
            registry=self.registry,
        )  # fmt: skip
        self.task_seconds = Gauge(
            "logagg_maintenance_duration_seconds", "How long it took.", task, registry=self.registry
        )
        self.task_failures = self._counter("maintenance_failures", "Runs of it that failed.", task)
        for name in TASKS:
            self.task_failures.labels(name)
        self.unpacked = Gauge(
            "logagg_unpacked_batches", "Batches that are closed and not packed yet.", registry=self.registry
        )
        self.unpacked_age = Gauge(
            "logagg_unpacked_age_seconds", "How long the oldest of them is closed.", registry=self.registry
        )
        kind = ("kind",)
        self.query_seconds = Histogram(
            "logagg_query_seconds", "Duration of a question, its wait for a turn included.", kind, buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.query_limits = self._counter("query_limits", "Questions that a limit of time or memory ended.", kind)
        self.canary_seconds = Histogram(
            "logagg_canary_seconds", "From sending a marker to finding it by a query.", transport, buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.canary_failures = self._counter("canary_failures", "Markers that were not found in time.", transport)

        self.alert_firing = Gauge(
            "logagg_alert_firing", "1 while an alert fires; of the daemon that evaluates them.", ("alert",),
            registry=self.registry,
        )  # fmt: skip
        self.alert_waiting = Gauge(
            "logagg_alert_messages_waiting", "Messages that wait for its webhook; of the daemon that evaluates it.",
            ("alert",), registry=self.registry,
        )  # fmt: skip
        self.alert_failures = self._counter(
            "alert_failures", "Times that an alert could not be evaluated, or its webhook not be told.",
            ("alert", "what"),
        )  # fmt: skip
        self.sources = Gauge("logagg_sources", "Sources that are known.", registry=self.registry)
        self.sources_silent = Gauge(
            "logagg_sources_silent", "Sources that are silent for longer than is usual of them.", registry=self.registry
        )
        self.source_last_seen = Gauge(
            "logagg_source_last_seen_timestamp_seconds", "When a source was seen for the last time, in Unix time.",
            ("host", "service", "environment", "transport"), registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            "logagg_records_in_flight", "Records in the buffer, being written, or read and held back for want of room.",
            transport, registry=self.registry,
        )  # fmt: skip
        #: What counts records of a transport that are in flight, besides the buffer.
        self._held: dict[str, Callable[[], int]] = {}
        self._in_buffer: dict[str, int] = {}
        self._of: dict[str, OfTransport] = {}

    def of(self, transport: str) -> OfTransport:
        """Return the counters of a transport."""
        if transport not in self._of:
            counters = (self.received, self.received_bytes, self.stored, self.quarantined)
            received, size, stored, quarantined = (each.labels(transport) for each in counters)
            for reason in _REASONS:
                self.dropped.labels(transport, reason)
            if transport.endswith("-udp"):
                self.lost.labels(transport)
            seconds = self.ack_seconds.labels(transport)
            self._of[transport] = OfTransport(received, size, stored, quarantined, seconds)
            self.in_flight.labels(transport).set_function(partial(self._in_flight, transport))
        return self._of[transport]

    def settled(self, transport: str, stored: int, quarantined: int) -> None:
        """Count what is committed."""
        counters = self.of(transport)
        counters.stored.inc(stored)
        if quarantined:
            counters.quarantined.inc(quarantined)

    def _in_flight(self, transport: str) -> int:
        held = self._held.get(transport)
        return self._in_buffer.get(transport, 0) + (held() if held else 0)

    def holds(self, transport: str, held: Callable[[], int]) -> None:
        """Say how a listener counts what it has read and the buffer had no room for."""
        self._held[transport] = held

    def watch(self, buffer: RingBuffer) -> None:
        """Show how full the buffer is."""
        self._in_buffer = buffer.of_transport
        self._show("buffer_records", "Records that wait for PostgreSQL.", lambda: buffer.records)
        self._show("buffer_bytes", "Bytes that wait for PostgreSQL.", lambda: buffer.bytes)
        self._show("buffer_limit_bytes", "Bytes that may wait.", lambda: buffer.max_bytes)

    def watch_store(self, trouble: Callable[[], str | None]) -> None:
        """Show whether records are taken, by what says why not."""
        self._show("postgres_up", "Whether PostgreSQL takes records: 1, or 0.", lambda: trouble() is None)

    def watch_replica(self, trouble: Callable[[], str | None]) -> None:
        """Show whether the read replica is asked, by what says why not."""
        self._show("replica_up", "Whether the read replica answers: 1, or 0.", lambda: trouble() is None)

    def watch_journal(self, journal: Journal) -> None:
        """Show what is in the journal."""
        self._show("journal_records", "Records in the journal.", lambda: journal.records)
        self._show("journal_bytes", "Bytes of its files.", lambda: journal.bytes)
        self._show("journal_limit_bytes", "Bytes that they may have.", lambda: journal.max_bytes)
        self._show(
            "journal_age_seconds", "How long the oldest of them is there.",
            lambda: 0 if journal.oldest is None else max(0, time.time() - journal.oldest),
        )  # fmt: skip
        self._show("journal_damaged_files", "Files of it that are damaged.", lambda: len(journal.damaged))
        self._show("journal_cut_bytes", "Bytes of torn ends, cut at the start.", lambda: journal.cut_bytes)
        self._show("journal_lost_records", "Records that damage made unreadable.", lambda: journal.lost_records)

    @contextmanager
    def question(self, kind: str) -> Iterator[None]:
        """Measure a question of some kind."""
        limits = self.query_limits.labels(kind)
        with self.query_seconds.labels(kind).time():
            try:
                yield
            except QueryLimit:
                limits.inc()
                raise

    def watch_queries(self, damaged: Callable[[], int], tails: Callable[[], int]) -> None:
        """Show what those who ask meet."""
        self._show("damaged_batches", "Packed batches that a question could not read, since the start.", damaged)
        self._show("tails", "Live tails under way.", tails)

    def maintained(self, done: Upkeep) -> None:
        """Note the tasks of a round of maintenance, and what it found waiting."""
        for task in done.tasks:
            self.task_time.labels(task.name).set(task.ended)
            self.task_seconds.labels(task.name).set(task.seconds)
            if task.error:
                self.task_failures.labels(task.name).inc()
        if done.lag:
            self.unpacked.set(done.lag.batches)
            self.unpacked_age.set(done.lag.age.total_seconds())

    def totals(self) -> dict[str, dict[str, float]]:
        """Return the books for people: of each transport, received, stored, quarantined and dropped."""
        books: dict[str, dict[str, float]] = {}
        for counter in (
            self.received,
            self.stored,
            self.duplicate,
            self.quarantined,
            self.dropped,
            self.journaled,
            self.replayed,
        ):
            for sample in chain.from_iterable(metric.samples for metric in counter.collect()):
                if sample.name.endswith("_total") and (sample.value or counter is not self.dropped):
                    name = sample.name.removeprefix("logagg_records_").removesuffix("_total")
                    of_transport = books.setdefault(sample.labels["transport"], {})
                    of_transport[name] = of_transport.get(name, 0) + sample.value
        return books

    def _show(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(f"logagg_{name}", text, registry=self.registry).set_function(value)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"logagg_{name}", text, labels, registry=self.registry)
