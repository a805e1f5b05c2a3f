"""Records that have fields in common: those of one Loki stream, of one OTLP resource and scope.

What is common is mapped once. `mapping.from_object` of all fields of a record together is the reference, and a test
holds the short way to it.
"""

from datetime import datetime
from typing import Any, Final

from logagg.protocols import jsontext
from logagg.protocols.mapping import from_object
from logagg.protocols.names import FIELDS, OPENED, TREE, others
from logagg.protocols.record import LEVELS, Origin, Record

#: Names that may be a field, or change which one another is: a record that has one of its own is for the mapping.
_KNOWN: Final = frozenset(TREE) | OPENED
#: The same for those in common, of which the records have their own.
_OWN: Final = frozenset({"timestamp", "message"}).union(
    others(frozenset((field, 0) for field in FIELDS if field not in {"trace_id", "span_id"}))
)

_new = tuple.__new__


class Group:
    """Makes records of what is common and what each has of its own."""

    def __init__(self, common: dict[str, Any], origin: Origin, name: str) -> None:
        """Take the common fields over, under the names that senders gave them; raises ValueError as `record` does.

        `name` is put before the name of a common one that a record has otherwise, `stream` or `resource`.
        """
        self._common, self._origin, self._name = common, origin, name
        self._text = jsontext.dumps(common).encode() if dict in map(type, common.values()) else None
        self._plain = _OWN.isdisjoint(common)
        # Whether the records have a level of their own may change what the others mean.
        self._templates = self._template({}), self._template({"level": LEVELS[0]})
        self._levelled = "level" in common

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
            self._plain
            and message is not None
            and type(timestamp) is datetime
            and (severity is None or not self._levelled)
            and (not own or (_KNOWN.isdisjoint(own) and self._common.keys().isdisjoint(own)))
        ):
            template = self._templates[severity is not None]
            if severity is None:
                severity = template.severity
            attributes = _joined(template.attributes, jsontext.dumps(own)) if own else template.attributes
            sender = template[3:8]
            return _new(Record, (timestamp, self._origin.now, severity, *sender, message, attributes, *ids, raw))
        return self._long_way(timestamp, message, own, severity, ids, raw)

    def _long_way(
        self,
        timestamp: Any,
        message: str | None,
        own: dict[str, Any],
        severity: int | None,
        ids: tuple[str | None, str | None],
        raw: bytes | None,
    ) -> Record:
        common, obj = self._common, self._copy()
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

    def _template(self, level: dict[str, str]) -> Record:
        given = {"timestamp": self._origin.now.isoformat(), "message": ""}
        return from_object(self._copy() | given | level, self._origin)

    def _copy(self) -> dict[str, Any]:
        """Return what is common, for the mapping, which takes inner objects over, too."""
        return dict(self._common) if self._text is None else dict(jsontext.loads(self._text).value)


def _joined(first: str | None, second: str) -> str:
    """Join the texts of two objects that have no name in common."""
    return second if first is None else f"{first[:-1]},{second[1:]}"
