"""The bytes of a connection that the broker has opened for a guest, unencrypted or with TLS.

The other side is verified with the authorities that the system trusts. They are loaded in the zygote, because a
confined process can read no file.
"""

from __future__ import annotations

import contextlib
import os
import select
import ssl
from collections.abc import Sequence

from .bodies import Broken

_READ = 64 * 1024

_HTTP = ("http/1.1",)
_trusted: dict[tuple[str, ...], ssl.SSLContext] = {}


def prepare() -> None:
    """In the zygote: load what the system trusts."""
    trusted(_HTTP)


def trusted(protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
    """The settings for TLS with servers that the system trusts. Call it in the zygote first, which can read files.

    Args:
        protocols: names of protocols for ALPN.
    """
    if protocols not in _trusted:
        context = ssl.create_default_context()
        if protocols:
            context.set_alpn_protocols(list(protocols))
        # Python loads some modules only when a host name is given. A child could not load them.
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="example.com")
        _trusted[protocols] = context
    return _trusted[protocols]


class Wire:
    """A connection, which never waits.

    Args:
        host: the name that the certificate of the other side has to have; None for a connection without TLS.

    Attributes:
        descriptor: of the connection, which it closes; below 0 where there is none (yet, or any more).
        plain: bytes to send, before encryption.
        out: bytes as they go over the network, which wait to be written.
        shaken: the TLS handshake is done, or there is no TLS.
        ended: the other side has closed it.
    """

    def __init__(self, host: str | None) -> None:
        self.descriptor = -1
        self.plain, self.out = bytearray(), bytearray()
        self.ended = False
        self._tls: ssl.SSLObject | None = None
        self._in, self._tls_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        if host is not None:
            self._tls = trusted(_HTTP).wrap_bio(self._in, self._tls_out, server_hostname=host)
        self.shaken = self._tls is None

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self.descriptor >= 0

    def polls(self) -> Sequence[tuple[int, int]]:
        """What to poll, of a connection that is there."""
        return ((self.descriptor, select.POLLIN | (select.POLLOUT if self.out else 0)),)

    def polls_to_write(self) -> Sequence[tuple[int, int]]:
        """What to poll, of a connection that is there, until what waits to be written can be."""
        return ((self.descriptor, select.POLLOUT),) if self.shaken else self.polls()

    def shake(self) -> bool:
        """Go on with the TLS handshake, as far as possible without waiting. Returns whether it is done.

        Raises:
            Broken: the handshake has failed, or the connection is broken.
        """
        while not self.shaken:
            assert self._tls is not None
            try:
                self._tls.do_handshake()
                self.shaken = True
            except ssl.SSLWantReadError:
                self.write()
                if not self._fill():
                    return False
            except ssl.SSLCertVerificationError:
                with contextlib.suppress(Broken):
                    self.write()
                raise Broken(("TLS-certificate-error", None)) from None
            except ssl.SSLError:
                raise Broken(("TLS-protocol-error", None)) from None
        return True

    def receive(self) -> bytes | None:
        """The bytes that have come; None if there are none now, empty at the end.

        Raises:
            Broken: the connection is broken.
        """
        if self._tls is None:
            return self._read()
        while True:
            try:
                return self._tls.read(_READ)
            except ssl.SSLWantReadError:
                if not self._fill():
                    return None
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError:  # the connection has ended without saying so, too
                raise Broken(("connection-terminated", None)) from None

    def _read(self) -> bytes | None:
        """What has come from the network."""
        try:
            data = os.read(self.descriptor, _READ)
        except BlockingIOError:
            return None
        except OSError:
            raise Broken(("connection-terminated", None)) from None
        self.ended = not data
        return data

    def _fill(self) -> bool:
        """Pass bytes from the network to TLS. Returns False if there are none now."""
        data = self._read()
        if data is None:
            return False
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        return True

    def write(self) -> None:
        """Write as much as possible without waiting."""
        if self._tls is not None:
            if self.plain and self.shaken:
                self._tls.write(self.plain)
                self.plain.clear()
            self.out += self._tls_out.read()
        else:
            self.out += self.plain
            self.plain.clear()
        try:
            while self.out:
                del self.out[: os.write(self.descriptor, self.out)]
        except BlockingIOError:
            pass
        except OSError:
            # The server may have said why before it closed.
            self.out.clear()

    def close(self) -> None:
        """Close the connection."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
