"""Why a server cannot be asked, in one line that says what to do."""

import socket
from typing import NamedTuple

from logagg.cli.terminal import Failure, visible

_EXCERPT = 80
#: Seconds for looking what is spoken at a port.
_LOOK = 2.0
TRUST = "--ca-file FILE (LOGAGG_CA_FILE) names the certificates to trust, SSL_CERT_FILE too"
PROOF = "--cert-file FILE (LOGAGG_CERT_FILE) and --key-file FILE (LOGAGG_KEY_FILE) show who asks"
#: What to do about a certificate, by the code of OpenSSL: an issuer that is not known, or other names.
_ADVICE = {
    **dict.fromkeys((2, 18, 19, 20, 21), TRUST),
    **dict.fromkeys((62, 64), "the address has to be one of the names that are in it"),
}
#: What a server says of a certificate that it does not take.
_REFUSALS = {
    "TLSV1_ALERT_UNKNOWN_CA",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
}


class Place(NamedTuple):
    """A server as it was named: its whole address, and the parts of it."""

    url: str
    https: bool
    host: str
    port: int | None
    #: The path before all routes, without a slash at its end.
    prefix: str

    @classmethod
    def of(cls, url: str) -> "Place":
        """Take an address apart. Raises Failure when it is none."""
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise Failure(f"{url!r} is not the address of a server; expected such as http://127.0.0.1:8000")
        return cls(url.rstrip("/"), parts.scheme == "https", parts.hostname, port, parts.path.rstrip("/"))


def reason(place: Place, error: Exception, timeout: float, shown: str | None = None) -> str:
    """Say why there was no answer; `timeout` is what was waited for one, in seconds.

    `shown` is the file of the certificate that we have shown, if any.
    """
    url = place.url
    if isinstance(error, ConnectionRefusedError):
        return f"cannot reach {url}: connection refused; is `logagg serve` running?"
    if isinstance(error, TimeoutError):
        return f"no answer from {url} within {timeout:g} s (--timeout)"
    if isinstance(error, socket.gaierror):
        return f"cannot reach {url}: the name {place.host} is not known"
    if said := _of_tls(place, error, shown):
        return said
    garbled = isinstance(error, ConnectionError) or not isinstance(error, OSError)
    if garbled and not place.https and speaks_tls(place):
        return f"{url} speaks https: --url https{url.removeprefix('http')}"
    if isinstance(error, ConnectionError):
        doubt = f"it may not take the certificate in {shown}" if shown else f"does it want a certificate? {PROOF}"
        return f"{url} closed the connection without an answer{f'; {doubt}' if place.https else ''}"
    if isinstance(error, OSError):
        return f"cannot reach {url}: {error.strerror or error}"
    return f"{url} did not answer in HTTP: {visible(str(error) or type(error).__name__)[:_EXCERPT]}"


def _of_tls(place: Place, error: Exception, shown: str | None) -> str | None:
    """Say what went wrong with https; None when it was something else."""
    if not place.https:
        return None
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        problem = visible(error.verify_message).rstrip(".")
        advice = _ADVICE.get(error.verify_code)
        return f"the certificate of {place.url} is not trusted: {problem}{f'; {advice}' if advice else ''}"
    if not isinstance(error, ssl.SSLError):
        return None
    if "CERTIFICATE_REQUIRED" in (error.reason or ""):
        return f"{place.url} wants a certificate: {PROOF}"
    if shown and (error.reason or "") in _REFUSALS:
        return f"{place.url} does not take the certificate in {shown}"
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
        return f"{place.url} does not speak https: --url http{place.url.removeprefix('https')}"
    return f"no https with {place.url}: {visible(error.reason or str(error)).replace('_', ' ').lower()}"


def speaks_tls(place: Place) -> bool:
    """Tell whether a TLS handshake succeeds there; nothing is sent after it, and nothing believed."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((place.host, place.port or 80), timeout=_LOOK) as plain,
            context.wrap_socket(plain, server_hostname=place.host),
        ):
            return True
    except (OSError, ValueError):
        return False
