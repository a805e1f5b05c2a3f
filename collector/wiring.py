"""Which protocol is spoken where: each stream protocol as its session."""

from datetime import tzinfo
from functools import partial

from logagg.collector.streams import StreamProtocol
from logagg.protocols import syslog_columns
from logagg.protocols.framing import Cut, LineFramer, SyslogFramer
from logagg.protocols.json_columns import decode_lines
from logagg.protocols.mapping import add_note
from logagg.protocols.record import Decoded, Origin, Reject
from logagg.protocols.session import FramedSession
from logagg.protocols.syslog import decode_syslog


def json_lines(max_frame: int) -> StreamProtocol:
    """Newline-delimited JSON. The start of a line that was cut is no JSON: it goes to quarantine."""
    return StreamProtocol("tcp", lambda: FramedSession(LineFramer(max_frame), decode_lines, _quarantine_cut))


def syslog(max_frame: int, zone: tzinfo) -> StreamProtocol:
    """Syslog, RFC 5424 and 3164, in both framings of RFC 6587. The start of a cut frame is kept as a record."""
    decode, decode_cut = partial(syslog_columns.decode_syslog, zone=zone), partial(_keep_cut, zone)
    return StreamProtocol("syslog-tcp", lambda: FramedSession(SyslogFramer(max_frame), decode, decode_cut))


def _quarantine_cut(cut: list[Cut], origin: Origin) -> Decoded:
    return Decoded([], [Reject(origin.now, origin.transport, origin.peer, _reason(each), each.frame) for each in cut])


def _keep_cut(zone: tzinfo, cut: list[Cut], origin: Origin) -> Decoded:
    decoded = decode_syslog([each.frame for each in cut], origin, zone)
    noted = [add_note(record, f"cut: {_reason(each)}") for record, each in zip(decoded.records, cut, strict=True)]
    return Decoded(noted, decoded.rejects)


def _reason(cut: Cut) -> str:
    return f"frame of {cut.length} bytes, at most {len(cut.frame)}"
