"""TLS of the listeners: one certificate for all, read again on SIGHUP."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from logagg.collector.turned_away import address_of

#: Makes the protocol of a connection.
Factory = Callable[[], asyncio.BaseProtocol]

#: Seconds that a sender has to shake hands.
PATIENCE: Final = 10.0
#: Handshakes under way at once, of all listeners together: who connects and says nothing takes no more than these.
MOST: Final = 1000

log = structlog.get_logger("daemon")

_NOT_OURS: Final = "the sender does not take tls_certificate"
#: What OpenSSL says, for who reads the log. What begins with TLSV1_ALERT or SSLV3_ALERT the sender has said.
_WORDS: Final = {
    "TLSV1_ALERT_UNKNOWN_CA": f"{_NOT_OURS}: it does not know the authority that signed it",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": f"{_NOT_OURS}: it has expired",
    "SSLV3_ALERT_BAD_CERTIFICATE": f"{_NOT_OURS}: it may be of another name",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _NOT_OURS,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the sender shows no certificate, and tls_client_ca asks for one",
    "WRONG_VERSION_NUMBER": "what the sender sends is not TLS",
    "HTTP_REQUEST": "the sender sends HTTP, without TLS",
    "UNSUPPORTED_PROTOCOL": "the sender speaks only versions of TLS that are too old",
    "NO_SHARED_CIPHER": "the sender knows none of the ciphers that are good enough",
}


class TlsError(ValueError):
    """The files of TLS cannot be used; the text names the file."""


class Tls:
    """What encrypts connections, made of files."""

    def __init__(self, certificate: Path, key: Path | None, client_ca: Path | None) -> None:
        """Read the files; `client_ca` is of those who sign the certificates of senders. Raises TlsError."""
        self._files = certificate, key
        self._client_ca = client_ca
        #: Told of which listener a handshake failed, the address of the sender, and why.
        self.failed: Callable[[str, str, str], None] = lambda *_: None
        #: Handshakes under way, which the event loop itself holds by weak references.
        self.shaking: set[asyncio.Task[None]] = set()
        self._contexts: list[ssl.SSLContext] = []
        self._made()

    def over(self, listener: str, *, by_certificate: bool) -> Callable[[Factory], Factory]:
        """Return what makes a factory of a listener's connections one of connections over TLS. Raises TlsError.

        With `by_certificate` senders have to show one that `client_ca` signed.
        """
        context = self._made()
        if by_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
        self._contexts.append(context)
        return lambda factory: partial(_Arrival, self, listener, context, factory)

    def _made(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        _read(context, *self._files)
        if self._client_ca:
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ssl.SSLError) as error:
                raise TlsError(f"tls_client_ca: {self._client_ca}: {error}") from None
        return context

    def reload(self) -> None:
        """Read the certificate and its key again: new connections get it. One that is wrong is said, and not taken."""
        try:
            self._made()  # a file that cannot be read, or a key that does not fit, must not touch what works
            for context in self._contexts:
                _read(context, *self._files)
        except TlsError as error:
            log.error("the certificate is not taken; the old one stays", reason=str(error))
        else:
            log.info("the certificate is read again", file=str(self._files[0]))


class _Arrival(asyncio.Protocol):
    """A connection before its handshake.

    For that the event loop gets its socket anew: a server that shakes hands by itself closes a connection when that
    fails, and tells nobody whose it was.
    """

    def __init__(self, tls: Tls, listener: str, context: ssl.SSLContext, factory: Factory) -> None:
        self._tls = tls
        self._listener = listener
        self._context = context
        self._factory = factory

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer, plain = address_of(transport), transport.get_extra_info("socket")
        try:
            if len(self._tls.shaking) >= MOST:
                raise OSError(f"{len(self._tls.shaking)} handshakes are under way, and {MOST} is the most")
            sock = socket.fromfd(plain.fileno(), plain.family, plain.type)
        except OSError as error:  # or too many files are open
            self._tls.failed(self._listener, peer, str(error))
        else:
            task = asyncio.get_running_loop().create_task(self._shake(sock, peer))
            self._tls.shaking.add(task)
            task.add_done_callback(self._tls.shaking.discard)
        transport.close()  # nothing was read yet, and the connection stays: it is that of the other descriptor, too

    async def _shake(self, sock: socket.socket, peer: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._factory, sock, ssl=self._context, ssl_handshake_timeout=PATIENCE)
        except ssl.SSLError as error:
            self._tls.failed(self._listener, peer, _worded(error))
        except OSError as error:  # it has gone away, or said nothing for so long
            log.debug("a TLS handshake did not end", listener=self._listener, peer=peer, reason=str(error))


def _worded(error: ssl.SSLError) -> str:
    """Return why a handshake failed, with the name that OpenSSL has for it."""
    name = error.reason or str(error)
    if fault := getattr(error, "verify_message", ""):
        return f"the certificate of the sender is not taken: {fault} ({name})"
    return f"{_WORDS[name]} ({name})" if name in _WORDS else name


def tls_of(certificate: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    """Return what these settings say; None without a certificate. Raises TlsError."""
    return Tls(certificate, key, client_ca) if certificate else None


def _read(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    for setting, file in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            if file:
                file.open("rb").close()  # OpenSSL does not say which of the two it cannot read
        except OSError as error:
            raise TlsError(f"{setting}: {file}: {error.strerror}") from None
    try:
        context.load_cert_chain(certificate, key, lambda: "")  # nobody is there to be asked for a password
    except (OSError, ssl.SSLError) as error:
        files = f"{certificate}" + (f", {key}" if key else "")
        name = getattr(error, "reason", None) or ""
        problem = f"the key is not that of the certificate ({name})" if "MISMATCH" in name else error
        raise TlsError(f"tls_certificate: {files}: {problem}") from None
