"""TLS of the listeners: one certificate for all, read again on SIGHUP."""

import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger("daemon")


class TlsError(ValueError):
    """The files of TLS cannot be used; the text names the file."""


class Tls:
    """What encrypts connections, made of files."""

    def __init__(self, certificate: Path, key: Path | None, client_ca: Path | None) -> None:
        """Read the files; with `client_ca` senders have to show a certificate that it signed. Raises TlsError."""
        self._files = certificate, key
        self._client_ca = client_ca
        #: Told why a handshake failed; the event loop itself closes the connection without a word.
        self.failed: Callable[[str], None] = lambda _: None
        self.context = self._made()

    def _made(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.sslobject_class = _telling(lambda reason: self.failed(reason))
        _read(context, *self._files)
        if self._client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ssl.SSLError) as error:
                raise TlsError(f"tls_client_ca: {self._client_ca}: {error}") from None
        return context

    def reload(self) -> None:
        """Read the certificate and its key again: new connections get it. One that is wrong is said, and not taken."""
        try:
            self._made()  # a file that cannot be read, or a key that does not fit, must not touch what works
            _read(self.context, *self._files)
        except TlsError as error:
            log.error("the certificate is not taken; the old one stays", reason=str(error))
        else:
            log.info("the certificate is read again", file=str(self._files[0]))


def _telling(failed: Callable[[str], None]) -> type[ssl.SSLObject]:
    """Return the class of connections that tell why their handshake failed."""

    class Connection(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                failed(getattr(error, "verify_message", "") or error.reason or str(error))
                raise

    return Connection


def tls_of(certificate: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    """Return what these settings say; None without a certificate. Raises TlsError."""
    return Tls(certificate, key, client_ca) if certificate else None


def _read(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(certificate, key, lambda: "")  # nobody is there to be asked for a password
    except (OSError, ssl.SSLError) as error:
        files = f"{certificate}" + (f", {key}" if key else "")
        raise TlsError(f"tls_certificate: {files}: {error}") from None
