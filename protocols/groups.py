"""Records that have fields in common: those of one Loki stream, of one OTLP resource and scope.

What is common is mapped once. `mapping.from_object` of all fields of a record together is the reference, and a test
holds the short way to it.
"""

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from logagg.protocols import jsontext
from logagg.protocols.mapping import from_object
from logagg.protocols.names import FIELDS, RULES, others
from logagg.protocols.record import LEVELS, Origin, Record

#: Names that mean something beside others, whatever is given.
_COMPANY: Final = frozenset().union(*(company for rule in RULES for company in rule.company))
_GIVEN: Final = frozenset({("timestamp", 0), ("message", 0)})
_LEVEL: Final = ("level", 0)
#: Names that may be a field, or change which one another is, by whether the record has a level: one that has such a
#: name of its own is for the mapping.
KNOWN: Final = tuple(
    others(given) | _COMPANY | {"timestamp", "message", "level"} for given in (_GIVEN, _GIVEN | {_LEVEL})
)
#: The same for those in common, of which the records have their own.
_OWN: Final = frozenset({"timestamp", "message"}).union(
    others(frozenset((field, 0) for field in FIELDS if field not in {"trace_id", "span_id"}))
)
#: A template is kept for the next group that is alike, unless its text is longer than this.
_LONGEST: Final = 4096

_new = tuple.__new__


class Group:
    """Makes records of what is common and what each has of its own."""

    def __init__(self, common: dict[str, Any], origin: Origin, name: str) -> None:
        """Take the common fields over, under the names that senders gave them; raises ValueError as `record` does.

        `name` is put before the name of a common one that a record has otherwise, `stream` or `resource`.
        """
        self.common: Final = common
        self._origin, self._name = origin, name
        self._text = jsontext.dumps(common)
        self._nested = dict in map(type, common.values())
        self._templates: dict[bool, Record] = {}
        #: Nothing in common takes the place of what the records have of their own.
        self.plain: Final = _OWN.isdisjoint(common)
        #: What is common has a level, by its first name.
        self.levelled: Final = "level" in common

    def template(self, levelled: bool) -> Record:
        """Return what a record is besides its own fields, by whether these have a level, which may change the rest."""
        if levelled not in self._templates:
            make = _template if len(self._text) <= _LONGEST else _template.__wrapped__
            self._templates[levelled] = make(self._text, levelled, self._origin.environment, self._origin.peer)
        return self._templates[levelled]

    def record(
        self,
        timestamp: Any,
        message: str | None,
        own: dict[str, Any],
        severity: int | None = None,
        ids: tuple[str | None, str | None] = (None, None),
        raw: bytes | None = None,
    ) -> Record:
        """Make a record. `own` is taken over; it is mapped to the fields that the other arguments leave open.

        `timestamp` is aware and in UTC, or what `times.to_datetime` reads, or None; `ids` are of trace and span.
        Raises ValueError for what is nested too deeply to be written.
        """
        if (
            self.plain
            and message is not None
            and type(timestamp) is datetime
            and (severity is None or not self.levelled)
            and (not own or self.is_plain(own, severity is not None))
        ):
            template = self.template(severity is not None)
            if severity is None:
                severity = template.severity
            attributes = _joined(template.attributes, jsontext.dumps(own)) if own else template.attributes
            sender = template[3:8]
            return _new(Record, (timestamp, self._origin.now, severity, *sender, message, attributes, *ids, raw))
        return self._long_way(timestamp, message, own, severity, ids, raw)

    def is_plain(self, own: dict[str, Any], levelled: bool) -> bool:
        """Tell whether a record's own fields are attributes only, and none has a name of a common one."""
        return KNOWN[levelled].isdisjoint(own) and self.common.keys().isdisjoint(own)

    def _long_way(
        self,
        timestamp: Any,
        message: str | None,
        own: dict[str, Any],
        severity: int | None,
        ids: tuple[str | None, str | None],
        raw: bytes | None,
    ) -> Record:
        common, obj = self.common, self._copy()
        for name, value in own.items():
            if name in common and common[name] != value:
                obj[f"{self._name}.{name}"] = obj[name]
            obj[name] = value
        level = None if severity is None else LEVELS[severity]
        stamp = timestamp.isoformat() if isinstance(timestamp, datetime) else timestamp
        given = {"timestamp": stamp, "level": level, "message": message, "trace_id": ids[0], "span_id": ids[1]}
        for name, value in given.items():
            if value is not None:
                if name in obj:  # what the sender calls so is another thing
                    obj[f"{'attribute' if name in own else self._name}.{name}"] = obj[name]
                obj[name] = value
        return from_object(obj, self._origin, raw)

    def _copy(self) -> dict[str, Any]:
        """Return what is common, for the mapping, which takes inner objects over, too."""
        return dict(jsontext.loads(self._text.encode()).value) if self._nested else dict(self.common)


@lru_cache(maxsize=1024)
def _template(common: str, levelled: bool, environment: str | None, peer: str) -> Record:
    now = datetime.fromtimestamp(0, UTC)
    given = {"timestamp": now.isoformat(), "message": ""} | ({"level": LEVELS[0]} if levelled else {})
    return from_object(json.loads(common) | given, Origin(now, "", peer, environment))


def _joined(first: str | None, second: str) -> str:
    """Join the texts of two objects that have no name in common."""
    return second if first is None else f"{first[:-1]},{second[1:]}"
