"""The daemon, from top to bottom: what it is made of, the order in which it starts, and the order in which it stops.

It stops the other way round: the listeners first, then the buffer is stored, with a deadline, then the query side, the
store, and last the embedded PostgreSQL.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import structlog
import uvloop
from aiohttp import web

from logagg.collector import wiring
from logagg.collector.access import Access
from logagg.collector.alerting import Alerting
from logagg.collector.alerting_routes import alert_routes
from logagg.collector.announcing import announce, url_of
from logagg.collector.buffer import RingBuffer
from logagg.collector.canary import Canary
from logagg.collector.complaints import Complaints
from logagg.collector.connecting import connect, connect_later
from logagg.collector.flusher import Flusher
from logagg.collector.ingest import ingest_routes
from logagg.collector.intake import Intake
from logagg.collector.journal_upload import Uploads
from logagg.collector.journaling import Journaling
from logagg.collector.listening import listen
from logagg.collector.logs import set_up_logs
from logagg.collector.metrics import Metrics
from logagg.collector.notify import notify, watchdog
from logagg.collector.push import greeting, push_routes
from logagg.collector.reload import Reloading
from logagg.collector.settings import Settings
from logagg.collector.sockets import Inherited
from logagg.collector.sources import Watch
from logagg.collector.tls import TlsError, tls_of
from logagg.collector.units import Address
from logagg.protocols import elasticsearch
from logagg.query.bodies import BODIES, Bodies
from logagg.query.engine import Engine
from logagg.query.grants import GUARD
from logagg.query.http import make_app
from logagg.query.routes_export import export_routes
from logagg.query.routes_logs import log_routes
from logagg.query.routes_sources import source_routes
from logagg.query.routes_status import Status, page_routes, status_routes
from logagg.query.routes_tail import tail_routes
from logagg.query.tail import Tails
from logagg.sinks.embedded import EmbeddedError, EmbeddedPostgres, default_data_dir
from logagg.sinks.errors import StoreError, StoreUnavailable
from logagg.sinks.journal import Journal, JournalError
from logagg.sinks.store import Store
from logagg.sinks.trimming import Keep
from logagg.sinks.upkeep import Upkeep

log = structlog.get_logger("daemon")

MAINTENANCE_PERIOD = 60.0
#: Seconds that a stop takes to bring into the journal what PostgreSQL did not take.
JOURNAL_PATIENCE = 15.0
#: How often we look whether the embedded PostgreSQL still runs.
SERVER_PERIOD = 5.0


def serve(settings: Settings, read: Callable[[], Settings]) -> int:
    """Run until SIGTERM or SIGINT. Return the exit status: 0 after an orderly stop, 1 when it could not go on.

    `read` reads the settings again, on SIGHUP.
    """
    set_up_logs(settings.log_level, settings.log_format)
    _raise_file_limit()
    status = 0
    try:
        uvloop.run(_until_signalled(Reloading(settings, read)))
    except* (EmbeddedError, JournalError, OSError, StoreError, TlsError) as errors:
        log.error("the daemon stops", reason="; ".join(str(error) for error in errors.exceptions))
        status = 1
    return status


async def run(reloading: Reloading, stopping: asyncio.Event, ready: Callable[[Mapping[str, Address]], None]) -> None:
    """Run the daemon until `stopping` is set. `ready` gets the addresses, by setting, once all listen."""
    settings = reloading.settings
    tls = tls_of(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    async with AsyncExitStack() as stack:
        server = EmbeddedPostgres(settings.data_dir) if settings.database_url is None else None
        url = settings.database_url or ""
        folder = (settings.data_dir or default_data_dir()).absolute()
        if server:
            stack.push_async_callback(asyncio.to_thread, server.stop)
            url = await asyncio.to_thread(server.start)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = _store(url, settings, folder)
        stack.push_async_callback(store.close)
        engine = Engine(store, timeout=settings.query_timeout.total_seconds(), concurrency=settings.query_concurrency)
        stack.callback(engine.close)
        metrics = Metrics()
        buffer = RingBuffer(settings.buffer_records, settings.waiting)
        metrics.watch(buffer)
        engine.around = metrics.question
        journaling = await _journaling(stack, folder, settings, store, metrics)
        access = Access(store.tokens, folder, metrics, required=settings.auth_required)
        sources = Watch(store.sources, metrics)
        alerting = _alerting(settings, store, engine, metrics, journaling)
        flusher = Flusher(
            buffer,
            store,
            metrics,
            lanes=settings.flush_lanes,
            max_records=settings.flush_records,
            interval=settings.flush_interval.total_seconds(),
            refuge=journaling,
            patience=settings.journal_after.total_seconds(),
            saw=sources.saw,
        )
        intake = Intake(
            buffer,
            metrics,
            max_records=settings.flush_records,
            ack_timeout=settings.ack_timeout.total_seconds(),
            redactor=settings.redactor,
        )
        reloading.on(
            {
                "log_level": lambda new: logging.getLogger().setLevel(new.log_level.upper()),
                "ack_timeout": lambda new: setattr(intake, "ack_timeout", new.ack_timeout.total_seconds()),
                "journal_after": lambda new: setattr(flusher, "patience", new.journal_after.total_seconds()),
                "alerts": lambda new: alerting.take(new.alerts),
                "query_timeout": lambda new: setattr(engine, "timeout", new.query_timeout.total_seconds()),
                **dict.fromkeys(
                    (
                        *("rows_retention", "rows_retention_size"),
                        *("retention", "retention_size", "retention_for", "quarantine_size", "stop_timeout"),
                    ),
                    _read_when_needed,
                ),
            }
        )
        if tls:
            reloading.each_time(tls.reload)
            tls.failed = partial(_handshake_failed, metrics, Complaints())
        connected = asyncio.Event()
        if await connect(store, settings.start_timeout.total_seconds(), journaling):
            connected.set()
            with contextlib.suppress(StoreUnavailable):
                await access.refresh()
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(flusher.run(), name="flusher"),
                group.create_task(connect_later(store, connected), name="connect"),
                group.create_task(_maintain(store, reloading, metrics, connected), name="maintenance"),
                group.create_task(_keep_running(server), name="embedded PostgreSQL"),
                group.create_task(watchdog(), name="watchdog"),
                group.create_task(access.run(), name="access"),
                group.create_task(sources.run(lambda: reloading.settings.retention), name="sources"),
                group.create_task(alerting.run(), name="alerts"),
            ]
            if journaling:
                background.append(group.create_task(journaling.run(), name="journal"))
            async with AsyncExitStack() as listeners:
                app = _application(settings, store, engine, flusher, intake, metrics, journaling, alerting)
                if settings.otel_endpoint:
                    from logagg.collector.tracing import trace  # OpenTelemetry is an extra, and takes its time

                    stack.push_async_callback(trace(settings.otel_endpoint, app, engine, flusher))
                canary = _canary(settings, engine, metrics)
                app[GUARD] = canary.let_in(access.admit) if canary else access.admit
                listening = await listen(listeners, settings, Inherited.of(), tls, intake, metrics, app)
                if canary:
                    listeners.callback(group.create_task(canary.run(listening), name="canary").cancel)
                _calm_collector()
                ready(listening)
                await stopping.wait()
                notify("STOPPING=1")
                log.info("stopping", waiting=buffer.records)
            await _drain(buffer, reloading.settings.stop_timeout.total_seconds(), store if journaling else None)
            for task in background:
                task.cancel()
    log.info("stopped")


def _handshake_failed(metrics: Metrics, complaints: Complaints, listener: str, peer: str, reason: str) -> None:
    metrics.handshake_failures.inc()
    complaints.say("a TLS handshake failed", "tls", peer, reason, listener=listener, kind=reason)


def _canary(settings: Settings, engine: Engine, metrics: Metrics) -> Canary | None:
    if not settings.canary_interval:
        return None
    interval, certificate = settings.canary_interval.total_seconds(), settings.tls_certificate
    over_tls, left_out = settings.over_tls, settings.proving
    return Canary(engine, metrics, interval=interval, certificate=certificate, over_tls=over_tls, left_out=left_out)


def _alerting(
    settings: Settings, store: Store, engine: Engine, metrics: Metrics, journaling: Journaling | None
) -> Alerting:
    page = settings.page_url or (url_of(settings.over_tls, settings.http_listen) if settings.http_listen else "")
    return Alerting(
        settings.alerts, store.alerts, engine, metrics, page, lambda: journaling is not None and journaling.waiting
    )


def _read_when_needed(_: Settings) -> None:
    """Stand for settings that nothing keeps a copy of."""


async def _journaling(
    stack: AsyncExitStack, folder: Path, settings: Settings, store: Store, metrics: Metrics
) -> Journaling | None:
    """Open the journal, if there shall be one."""
    if not settings.journal_size:
        return None
    try:
        journal = await asyncio.to_thread(Journal.open, folder / "journal", settings.journal_size)
    except JournalError as error:
        raise JournalError(f"{error}; give this daemon another data_dir, or set journal_size to 0") from error
    stack.push_async_callback(asyncio.to_thread, journal.close)
    metrics.watch_journal(journal)
    return Journaling(journal, store, metrics)


async def _keep_running(server: EmbeddedPostgres | None) -> None:
    """Start the embedded PostgreSQL again when it has died, and keep its log short."""
    while server:
        await asyncio.sleep(SERVER_PERIOD)
        try:
            if not await asyncio.to_thread(server.running):
                log.error("the embedded PostgreSQL has died; it is started again")
            await asyncio.to_thread(server.start)
            await asyncio.to_thread(server.trim_log)
        except EmbeddedError as error:
            log.error("the embedded PostgreSQL does not start", reason=str(error))


def _store(url: str, settings: Settings, folder: Path) -> Store:
    return Store(
        url,
        batch_records=settings.batch_records,
        batch_age=settings.batch_age,
        connections=settings.flush_lanes,
        pack_lag=settings.pack_lag,
        batch_bytes=settings.share,
        cache_bytes=settings.share,
        spool_dir=folder,
        replica_url=settings.reader_database_url,
    )


def _application(
    settings: Settings,
    store: Store,
    engine: Engine,
    flusher: Flusher,
    intake: Intake,
    metrics: Metrics,
    journaling: Journaling | None,
    alerting: Alerting,
) -> web.Application:
    status = Status(problem=lambda: flusher.trouble, counters=metrics.totals)
    tails = Tails(store, engine)
    metrics.watch_queries(lambda: engine.damaged_batches, lambda: tails.count)
    metrics.watch_store(lambda: flusher.trouble)
    if replica := store.replica:
        metrics.watch_replica(lambda: replica.trouble)
    uploads = Uploads(
        intake,
        store.keys,
        lambda: journaling is not None and journaling.waiting,
        max_frame=settings.max_frame,
        patience=settings.http_body_timeout.total_seconds(),
        environment=settings.environment,
    )
    routes = [
        *log_routes(engine),
        *export_routes(store, lambda kind: engine.around(kind)),
        *tail_routes(tails),
        *source_routes(store.sources),
        *alert_routes(alerting),
        *ingest_routes(intake, settings.environment),
        *push_routes(wiring.over_http(settings), intake, settings.environment),
        *uploads.routes(),
        *status_routes(store, status, metrics.registry),
    ]
    version = settings.elasticsearch_version
    routes = [
        greeting(route, elasticsearch.is_client, elasticsearch.root(version)) if route.path == "/" else route
        for route in routes
    ]
    app = make_app([*routes, *page_routes(routes)])
    app.on_shutdown.append(uploads.stop)
    app.on_shutdown.append(tails.stop)
    app[BODIES] = Bodies(
        limit=settings.http_max_body,
        limit_of_all=settings.waiting,
        patience=settings.http_body_timeout.total_seconds(),
    )
    return app


async def _maintain(store: Store, reloading: Reloading, metrics: Metrics, connected: asyncio.Event) -> None:
    await connected.wait()
    async with asyncio.TaskGroup() as group:
        group.create_task(_rounds(lambda: _maintenance(store, reloading.settings), metrics), name="upkeep")
        if store.replica:
            group.create_task(store.replica.watch(MAINTENANCE_PERIOD), name="replica")
        if reloading.settings.rows_gin:
            group.create_task(_rounds(store.index_rows, metrics), name="indexes")


def _maintenance(store: Store, settings: Settings) -> Awaitable[Upkeep]:
    return store.maintenance(
        settings.rows_retention,
        settings.retention,
        settings.rows_retention_size,
        settings.retention_size,
        settings.quarantine_size,
        keeps=tuple(Keep.of(what, span) for what, span in settings.retention_for.items()),
    )


async def _rounds(work: Callable[[], Awaitable[Upkeep]], metrics: Metrics) -> None:
    while True:
        try:
            done = await work()
            metrics.maintained(done)
            if news := done.news():
                log.info("maintenance", **news)
            for name, error in done.failures().items():
                unexpected = None if isinstance(error, StoreError) else error
                log.warning("maintenance failed", task=name, reason=str(error), exc_info=unexpected)
        except Exception as error:  # the next round may do better, and ingest goes on meanwhile
            log.warning("maintenance failed", reason=str(error), exc_info=not isinstance(error, StoreUnavailable))
        await asyncio.sleep(MAINTENANCE_PERIOD)


async def _drain(buffer: RingBuffer, patience: float, store: Store | None) -> None:
    """Wait until all is stored. With a store to abandon, what it does not take in time goes to the journal."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await buffer.empty()
            return
    if store:
        log.warning("PostgreSQL did not take all in time; the rest goes to the journal", waiting=buffer.records)
        store.abandon()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(JOURNAL_PATIENCE):
                await buffer.empty()
                return
    log.error("records were received and not stored", lost=buffer.records, bytes=buffer.bytes, waited=patience)


async def _until_signalled(reloading: Reloading) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, reloading.reload)
    await run(reloading, stopping, partial(announce, reloading.settings.over_tls))


def _calm_collector() -> None:
    """Let the cyclic garbage collector look less often: records are tuples without cycles, and come by the thousand."""
    gc.freeze()
    gc.set_threshold(200_000, 50, 1000)


def _raise_file_limit() -> None:
    """Allow as many connections as the system lets us: each takes a file descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
