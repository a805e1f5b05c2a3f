"""The metrics of the daemon, in one registry. The books: received = stored + quarantined + dropped + in the buffer."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from logagg.collector.buffer import RingBuffer

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_RECORDS = (1, 10, 100, 1000, 5000, 10_000, 20_000, 65_536)


class Metrics:
    """All that the daemon counts. Names follow the conventions of Prometheus; docs/metrics.md explains each."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
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
        self.cut = self._counter("frames_cut", "Frames longer than max_frame, cut and marked.", transport)
        self.connections = Gauge("logagg_connections", "Connections open now.", transport, registry=self.registry)
        self.connections_refused = self._counter(
            "connections_refused", "Connections closed at once: more than max_connections.", transport
        )
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
        self.maintenance_seconds = Gauge(
            "logagg_maintenance_seconds", "Duration of the last maintenance.", registry=self.registry
        )
        self.maintenance_time = Gauge(
            "logagg_maintenance_last_timestamp_seconds", "When the last maintenance ended.", registry=self.registry
        )

    def watch(self, buffer: RingBuffer) -> None:
        """Show how full the buffer is."""
        for name, text, value in (
            ("logagg_buffer_records", "Records that wait for PostgreSQL.", lambda: buffer.records),
            ("logagg_buffer_bytes", "Bytes that wait for PostgreSQL.", lambda: buffer.bytes),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)

    @contextmanager
    def maintenance(self) -> Iterator[None]:
        """Note when a round of maintenance ended, and how long it took."""
        with self.maintenance_seconds.time():
            yield
        self.maintenance_time.set(time.time())

    def totals(self) -> dict[str, dict[str, float]]:
        """Return the books for people: of each transport, received, stored, quarantined and dropped."""
        books: dict[str, dict[str, float]] = {}
        for counter in (self.received, self.stored, self.quarantined, self.dropped):
            for sample in chain.from_iterable(metric.samples for metric in counter.collect()):
                if sample.name.endswith("_total"):
                    name = sample.name.removeprefix("logagg_records_").removesuffix("_total")
                    of_transport = books.setdefault(sample.labels["transport"], {})
                    of_transport[name] = of_transport.get(name, 0) + sample.value
        return books

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"logagg_{name}", text, labels, registry=self.registry)
