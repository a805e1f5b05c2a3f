"""The tables of protocols: which is spoken where, by the setting that says where. A new one is a line here."""

import socket
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from functools import partial

from logagg.collector.datagrams import DatagramProtocol
from logagg.collector.settings import Settings
from logagg.collector.streams import StreamProtocol
from logagg.protocols import syslog_columns
from logagg.protocols.elasticsearch import elasticsearch
from logagg.protocols.fluent import decode_cut as decode_cut_events
from logagg.protocols.fluent import decode_events
from logagg.protocols.forward import ForwardSession
from logagg.protocols.framing import Cut, JsonFramer, SyslogFramer
from logagg.protocols.gelf import GELF, GelfAssembler, GelfFramer, decode_gelf
from logagg.protocols.http import HttpProtocol
from logagg.protocols.inflated import InflatedSession, inflating
from logagg.protocols.json_columns import decode_lines
from logagg.protocols.loki import LOKI
from logagg.protocols.lumberjack import LumberjackSession
from logagg.protocols.mapping import add_note
from logagg.protocols.msgpacked import ARRAYS, MsgpackFramer
from logagg.protocols.multiline import JoinedDatagrams, JoinedSession, Joiner
from logagg.protocols.otlp import OTLP
from logagg.protocols.record import Decoded, Decoder, Origin, Reject
from logagg.protocols.relp import RelpSession
from logagg.protocols.session import FramedSession, Session, SniffedSession
from logagg.protocols.splunk import SPLUNK
from logagg.protocols.syslog import decode_syslog

#: Seconds that the chunks of one GELF message may take to arrive, as its specification says.
_GELF_PATIENCE = 5.0


def streams(settings: Settings) -> dict[str, StreamProtocol]:
    """Return the protocols over TCP."""
    frame, zone = settings.max_frame, settings.syslog_zone
    zipped = partial(_inflated, frame, settings.http_max_body, zone)
    protocols = {
        "tcp_listen": StreamProtocol("tcp", partial(SniffedSession, partial(_json_or_msgpack, frame))),
        "syslog_tcp_listen": StreamProtocol("syslog-tcp", zipped),
        "syslog_tls_listen": StreamProtocol("syslog-tls", zipped),
        "relp_listen": StreamProtocol("relp", partial(RelpSession, frame, _syslog_decoder(zone)), answers=True),
        "forward_listen": StreamProtocol("forward", partial(_forward, settings), answers=True),
        "gelf_tcp_listen": StreamProtocol("gelf-tcp", partial(_gelf, frame)),
        "lumberjack_listen": StreamProtocol(
            "lumberjack", partial(LumberjackSession, frame, settings.http_max_body), answers=True
        ),
    }
    window = settings.multiline_window
    return {name: _joining(each, window) if name in settings.joined else each for name, each in protocols.items()}


def datagrams(settings: Settings) -> dict[str, DatagramProtocol]:
    """Return the protocols over UDP."""
    assembler = GelfAssembler(settings.udp_receive_buffer, _GELF_PATIENCE, settings.max_frame)
    syslog = DatagramProtocol("syslog-udp", _syslog_decoder(settings.syslog_zone))
    if "syslog_udp_listen" in settings.joined:
        joined = JoinedDatagrams(syslog.decode, Joiner(settings.multiline_window))
        syslog = DatagramProtocol("syslog-udp", joined, joined.expire)
    return {
        "syslog_udp_listen": syslog,
        "gelf_udp_listen": DatagramProtocol("gelf-udp", assembler, partial(_expire, assembler)),
    }


def over_http(settings: Settings) -> Sequence[HttpProtocol]:
    """Return the protocols over HTTP, besides `collector/ingest.py`."""
    return (LOKI, elasticsearch(settings.elasticsearch_version), OTLP, GELF, SPLUNK)


def _joining(protocol: StreamProtocol, window: timedelta) -> StreamProtocol:
    """Return the protocol with lines that belong together joined."""
    return replace(protocol, session=lambda: JoinedSession(protocol.session(), Joiner(window)), expires=True)


def _syslog_decoder(zone: tzinfo) -> Decoder:
    return partial(syslog_columns.decode_syslog, zone=zone)


def json_lines(max_frame: int) -> Session:
    """Return newline-delimited JSON. The start of a line that was cut is no JSON: it goes to quarantine."""
    return FramedSession(JsonFramer(max_frame), decode_lines, _quarantine_cut)


def _json_or_msgpack(max_frame: int, first: int) -> Session:
    if first not in ARRAYS:
        return json_lines(max_frame)
    return FramedSession(MsgpackFramer(max_frame), decode_events, decode_cut_events)


def syslog(max_frame: int, zone: tzinfo) -> Session:
    """Return syslog, RFC 5424 and 3164, in both framings of RFC 6587. The start of a cut frame is kept as a record."""
    return FramedSession(SyslogFramer(max_frame), _syslog_decoder(zone), partial(_keep_cut, zone))


def _inflated(max_frame: int, most: int, zone: tzinfo) -> Session:
    decode = inflating(_syslog_decoder(zone), max_frame, most)
    return InflatedSession(FramedSession(SyslogFramer(max_frame), decode, partial(_keep_cut, zone)), most)


def _gelf(max_frame: int) -> Session:
    return FramedSession(GelfFramer(max_frame), decode_gelf, _quarantine_cut)


def _forward(settings: Settings) -> Session:
    key = settings.forward_shared_key
    return ForwardSession(
        max_frame=settings.forward_max_frame,
        max_inflated=settings.http_max_body,
        shared_key=key.get_secret_value() if key else None,
        self_hostname=socket.gethostname(),
    )


def _expire(assembler: GelfAssembler, now: datetime | None) -> Decoded:
    return assembler.close() if now is None else assembler.expire(now)


def _quarantine_cut(cut: list[Cut], origin: Origin) -> Decoded:
    """Put the start of a cut frame where it cannot be read into quarantine."""
    return Decoded([], [Reject(origin.now, origin.transport, origin.peer, _reason(each), each.frame) for each in cut])


def _keep_cut(zone: tzinfo, cut: list[Cut], origin: Origin) -> Decoded:
    decoded = decode_syslog([each.frame for each in cut], origin, zone)
    noted = [add_note(record, f"cut: {_reason(each)}") for record, each in zip(decoded.records, cut, strict=True)]
    return Decoded(noted, decoded.rejects)


def _reason(cut: Cut) -> str:
    return f"frame of {cut.length} bytes, at most {len(cut.frame)}"
