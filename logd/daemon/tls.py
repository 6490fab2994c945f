"""TLS for the API: 1.2 or newer, and only for clients with a certificate that an authority of tlscacert has signed."""

import logging
import ssl
from typing import Any

from logd.config import DaemonConfig
from logd.errors import InvalidParameter

log = logging.getLogger(__name__)


class Handshake(ssl.SSLObject):
    """One connection. A client that is refused is told why by an alert, and our log too.

    asyncio alone closes such a connection without a word, on either side: it forgets what OpenSSL has yet to send.
    """

    outgoing: ssl.MemoryBIO
    _refused = False

    def do_handshake(self) -> None:
        """Go on with the handshake. After a refusal claim to wait for the client, so that asyncio sends the alert.

        The connection ends when the client closes it, sends anything, or at asyncio's handshake timeout.
        """
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if self._refused:
                raise
            self._refused = True
            log.info("TLS client refused: %s", _reason(error))
            if self.outgoing.pending:
                raise ssl.SSLWantReadError from error
            raise


class ServerContext(ssl.SSLContext):
    """What asyncio is given for a listener: it takes a new connection's TLS from the settings read last."""

    current: ssl.SSLContext

    def renew(self, config: DaemonConfig) -> None:
        """Read the PEM files for new connections. An authority no longer among them, and sessions from before, are out.

        Raises InvalidParameter, and changes nothing then.
        """
        self.current = _read(config)

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *options: Any, **named: Any) -> ssl.SSLObject:
        """Begin a connection (ssl.SSLContext.wrap_bio)."""
        connection = self.current.wrap_bio(incoming, outgoing, *options, **named)
        assert isinstance(connection, Handshake)
        connection.outgoing = outgoing
        return connection


def server_context(config: DaemonConfig) -> ServerContext:
    """Return the TLS of a listener. Raises InvalidParameter for a file that can't be used."""
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.renew(config)
    return context


def _read(config: DaemonConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.sslobject_class = Handshake
    try:
        context.load_verify_locations(config.tlscacert)
    except OSError as error:
        raise InvalidParameter(f"tlscacert: {config.tlscacert}: {error}") from error
    try:
        context.load_cert_chain(config.tlscert, config.tlskey)
    except OSError as error:
        raise InvalidParameter(f"tlscert, tlskey: {config.tlscert}, {config.tlskey}: {error}") from error
    return context


def _reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's words: why a certificate is not good, else what went wrong (`peer did not return a …`)."""
    words = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason
    return str(words or error).lower().replace("_", " ")
