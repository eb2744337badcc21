"""The bytes of a connection that a guest asked for, in the clear or by TLS.

TLS is verified against the authorities that the system trusts; they are loaded in the zygote, because a confined
process reads no file.
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
    """How TLS is spoken with those whom the system trusts; first called in the zygote.

    Args:
        protocols: what is spoken by it, as ALPN names it.
    """
    if protocols not in _trusted:
        context = ssl.create_default_context()
        if protocols:
            context.set_alpn_protocols(list(protocols))
        # What Python loads only when a name is given, it could not load in a child.
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="example.com")
        _trusted[protocols] = context
    return _trusted[protocols]


class Wire:
    """A connection, which never waits.

    Args:
        host: whom the other side has to prove to be, by TLS; None for a connection without it.

    Attributes:
        descriptor: of the connection, which it closes; below 0 where there is none (yet, or any more).
        plain: what is to be sent.
        out: what of it, as it goes over the network, waits to be written.
        shaken: it is ready for what is to be sent.
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
        """What is waited for, of a connection that is there."""
        return ((self.descriptor, select.POLLIN | (select.POLLOUT if self.out else 0)),)

    def shake(self) -> bool:
        """Agree with the other side on TLS, as far as it goes; whether that is done.

        Raises:
            Broken: they do not agree, or the connection is broken.
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
        """What has come; None where that is nothing, and empty at the end.

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
        """Give TLS what has come from the network; False where that is nothing."""
        data = self._read()
        if data is None:
            return False
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        return True

    def write(self) -> None:
        """Write what is to be sent, as far as it goes."""
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
        """Let go of it."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
