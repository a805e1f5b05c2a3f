"""The daemon's own log: structlog on stderr, JSON unless a person reads it. Never a line for a record."""

import logging
import sys
from typing import Literal

import structlog
from aiohttp.http_exceptions import HttpProcessingError

#: Characters of what is said of bytes that are no HTTP: they may be thousands.
_EXCERPT = 200


def set_up_logs(level: str, form: Literal["auto", "json", "console"]) -> None:
    """Send structlog and the standard library's loggers (asyncio, aiohttp) the same way, in the same form."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    final: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("aiohttp.server").addFilter(_without_fault)
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)  # that the server is away is said by us, once
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _without_fault(record: logging.LogRecord) -> bool:
    """Make a line of what aiohttp says of bytes that are no HTTP: they are no fault of the daemon, with a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        reason = " ".join(error.message.split()).removesuffix(" ^")
        record.msg, record.args = f"{record.getMessage()}: {reason[:_EXCERPT]}", ()
        record.exc_info = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return logging.getLogger(record.name).isEnabledFor(record.levelno)
