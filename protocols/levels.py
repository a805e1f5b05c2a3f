"""Names and numbers of severities and facilities, as senders write them."""

import re
from typing import Final

from logagg.protocols.record import LEVELS

#: The severity of a record that names none, or one that nobody knows.
DEFAULT_SEVERITY: Final = LEVELS.index("INFO")

#: Other names of each level, lower case. `panic` is the old name of emergency in syslog.conf(5).
ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "EMERGENCY": ("emerg", "panic"),
    "ALERT": (),
    "CRITICAL": ("crit", "critic", "fatal", "ftl", "dpanic", "c", "f"),
    "ERROR": ("err", "eror", "severe", "failure", "e"),
    "WARNING": ("warn", "wrn", "w"),
    "NOTICE": ("note", "success", "n"),
    "INFO": ("information", "informational", "inf", "i", "log", "config", "http", "default"),
    "DEBUG": (
        *("dbug", "dbg", "trace", "trc", "verbose", "vrb", "silly", "fine", "finer", "finest", "d", "t", "v"),
        *("debug1", "debug2", "debug3", "debug4", "debug5", "d1", "d2", "d3", "d4", "d5"),
    ),
}

#: Facility names by number, RFC 5424 section 6.2.1 and syslog(3).
FACILITIES: Final = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("ntp", "audit", "alert", "clock"),
    *("local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"),
)

_LOWER = {name: LEVELS.index(level) for level, names in ALIASES.items() for name in (level.lower(), *names)}

#: Severity by name, in the three cases that senders use, or by the digit of it, so that one look is enough for most.
SEVERITY_OF_NAME: Final = {
    **{form(name): n for name, n in _LOWER.items() for form in (str.lower, str.upper, str.title)},
    **{str(n): n for n in range(len(LEVELS))},
}

_FACILITY_OF_NAME = {name: number for number, name in enumerate(FACILITIES)} | {"security": 4}

#: What Go's slog adds to the name of a level for those between two: `INFO+2`.
_BETWEEN = re.compile(r"[+-][0-9]{1,3}$")

#: bunyan and pino: 10 trace, 20 debug, 30 info, 40 warn, 50 error, 60 fatal; between them the lower one.
_SEVERITY_OF_TEN = {1: 7, 2: 7, 3: 6, 4: 4, 5: 3, 6: 2}


def severity_of(value: object) -> int | None:
    """Severity 0 to 7 from a name in any case, a syslog number 0 to 7, or a bunyan number 10 to 69; else None."""
    if isinstance(value, str):
        severity = SEVERITY_OF_NAME.get(value)
        if severity is not None:
            return severity
        name = value.strip(" \t[]<>:").lower()
        if _short_number(name):
            return _severity_of_number(int(name))
        return _LOWER.get(name) if name in _LOWER else _LOWER.get(_BETWEEN.sub("", name))
    if isinstance(value, int) and not isinstance(value, bool):
        return _severity_of_number(value)
    return None


def facility_of(value: object) -> int | None:
    """Facility 0 to 23 from its number or its name; else None."""
    if isinstance(value, str):
        name = value.strip().lower()
        if not _short_number(name):
            return _FACILITY_OF_NAME.get(name)
        value = int(name)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(FACILITIES):
        return value
    return None


def _severity_of_number(number: int) -> int | None:
    return number if 0 <= number < len(LEVELS) else _SEVERITY_OF_TEN.get(number // 10)


def _short_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 4
