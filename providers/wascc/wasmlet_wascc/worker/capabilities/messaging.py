"""`wascc:messaging`: messages through a NATS server that the pod may reach.

Source: NATS's protocol for clients. With TLS, the server's first line still comes unencrypted, and TLS begins after it.
Anybody on the way may have written that line, so nothing in it is used.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from ..capability import Context, HostError, Link, Silent
from ..messages import BadMessage, both, field, named, number, octets, text
from ..reading import Reader

_PORT = 4222
_TLS = "tls"
_SUBJECT = re.compile(r"[^\s\x00-\x1f.*>]+(\.[^\s\x00-\x1f.*>]+)*")
_MOST_BODY = 2**20
_MOST_SKIPPED = 2**30
"""A message that is too large for the actor is skipped if it has at most so many bytes; else the connection ends."""
_HELLO_SECONDS = 10.0
_QUIET_SECONDS = 10.0
"""A lost message is logged. For so many seconds after that, other lost messages are only counted."""
_NO_NATS = "what answers is no NATS server"
_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between tries to connect again."""
_STEADY_SECONDS = 60.0
"""When a connection is lost that has lasted for so long, that is news: it is logged, and the pauses begin anew."""
_MOST_MILLISECONDS = 60_000
_INBOXES = 64
_MOST_COMPLAINTS = 20
_CREDENTIALS = {"auth_token": "NATS_TOKEN", "user": "NATS_USER", "pass": "NATS_PASSWORD"}
"""From the name of a credential in the protocol to the container's variable that holds it."""


class Messaging:
    """Publishes and asks for actors, and tells them of messages to the subjects that the pod names.

    The connection is there from the start of the container, since messages may come at any time.
    """

    def __init__(self, context: Context) -> None:
        parts = urlsplit(context.settings.get("url", ""))
        self._host, self._port = parts.hostname or "", parts.port or _PORT
        self._by_tls = parts.scheme == _TLS
        subjects = context.settings.get("subscriptions", "")
        self._subjects = [one for one in re.split(r"[\s,]+", subjects) if one]
        self._context = context
        self._sending = threading.Lock()
        self._link: Link | None = None
        self._tries = 0
        """How often connecting was tried since the last message came, or since a connection that lasted was lost."""
        self._up = threading.Condition()
        self._inbox = f"_INBOX.{secrets.token_hex(12)}"
        self._waiting: dict[str, list[bytes]] = {}
        self._lost, self._said = 0, -_QUIET_SECONDS
        """How many messages were lost since that was logged last, and when that was."""
        context.begin(self._run)

    def call(self, binding: str, operation: str, message: Any) -> Any:
        """See `Capability`. Operations: `Publish`, `Request`."""
        if operation == "Publish":
            message = named(message, ("subject", "replyTo", "body"))
            found = field(message, "message") or message
            self._publish(text(found, "subject"), text_or_none(found, "replyTo"), octets(field(found, "body")))
            return None
        if operation == "Request":
            message = named(message, ("subject", "body", "timeout"))
            milliseconds = number(message, "timeout", number(message, "timeoutMs", 2000))
            body = octets(field(message, "body"))
            return self._request(text(message, "subject"), body, min(max(1, milliseconds), _MOST_MILLISECONDS) / 1000)
        raise HostError(f"wascc:messaging has no operation {operation[:80]!r}, only Publish and Request")

    def _request(self, subject: str, body: bytes, seconds: float) -> bytes:
        """Publish, and wait for the first answer."""
        if len(self._waiting) >= _INBOXES:
            raise HostError("too many requests are under way")
        name = f"{self._inbox}.{secrets.token_hex(4)}"
        answers = self._waiting[name] = []
        until = min(time.monotonic() + seconds, self._context.deadline())
        try:
            self._publish(subject, name, body)
            with self._up:
                self._up.wait_for(lambda: answers, until - time.monotonic())
            if not answers:
                raise HostError(f"nobody has answered at {subject[:80]} within {seconds:g} s")
            return answers[0]
        finally:
            del self._waiting[name]

    def _publish(self, subject: str, reply: str, body: bytes) -> None:
        for one in filter(None, (subject, reply)):
            if len(one) > 256 or not _SUBJECT.fullmatch(one):
                raise BadMessage("expected a subject of words with dots between them, without wildcards")
        if len(body) > _MOST_BODY:
            raise HostError(f"a message has {len(body)} bytes, expected at most {_MOST_BODY}")
        words = " ".join(filter(None, ("PUB", subject, reply, str(len(body)))))
        if not self._sending.acquire(timeout=max(0.0, self._context.deadline() - time.monotonic())):
            raise HostError("the NATS server takes nothing")
        try:
            link = self._link
            if link is None:
                raise HostError("there is no connection to the NATS server at this moment")
            try:
                link.send(f"{words}\r\n".encode() + body + b"\r\n")
            except HostError:  # maybe in the middle of it
                self._link = None
                link.cut()
                raise
        finally:
            self._sending.release()

    def _run(self) -> None:
        """Keep a connection to the server, for as long as the container lives. Runs in a thread of its own."""
        while True:
            began = time.monotonic()
            try:
                link = self._context.dial(self._host, self._port)
                try:
                    self._listen(link)
                finally:
                    with self._sending:
                        self._link = None
                    link.close()
            except ValueError as error:  # HostError is one; and what a server says may be no NATS at all
                if time.monotonic() - began >= _STEADY_SECONDS:
                    self._tries = 0
                if not self._tries:
                    self._context.log(f"wascc:messaging: {error}; trying again")
            time.sleep(_PAUSES[min(self._tries, len(_PAUSES) - 1)])
            self._tries += 1

    def _listen(self, link: Link) -> None:
        """Take what comes, until the connection ends."""
        reader = Reader(link, "the NATS server")
        self._greet(link, reader)
        reader.patient = True
        complaints, quiet = 0, False
        while True:
            try:
                verb, _, rest = reader.line().decode(errors="replace").partition(" ")
            except Silent:
                if quiet:
                    raise
                quiet = True
                self._say(link, b"PING\r\n")
                continue
            quiet = False
            if verb == "PING":
                self._say(link, b"PONG\r\n")
            elif verb == "MSG":
                self._tries = 0
                self._take(reader, rest.split())
            elif verb == "-ERR":
                if (complaints := complaints + 1) <= _MOST_COMPLAINTS:
                    self._context.log(f"wascc:messaging: the NATS server says {rest[:200]}")
            elif verb not in ("INFO", "PONG", "+OK"):
                raise HostError(_NO_NATS)

    def _greet(self, link: Link, reader: Reader) -> None:
        """Say who this is, and what is wanted."""
        until = time.monotonic() + _HELLO_SECONDS
        if not reader.line(until).startswith(b"INFO "):
            raise HostError(_NO_NATS)
        if self._by_tls:
            if not reader.empty:
                raise HostError("the NATS server says more than it may before TLS")
            link.secure(self._host)
        hello = {"verbose": False, "pedantic": False, "lang": "wasmlet", "version": "1", "headers": False}
        env = self._context.env
        hello |= {name: env[variable] for name, variable in _CREDENTIALS.items() if env.get(variable)}
        subscriptions = [f"{self._inbox}.*", *self._subjects]
        lines = [f"CONNECT {json.dumps(hello)}", *(f"SUB {one} {at}" for at, one in enumerate(subscriptions))]
        link.send("".join(f"{line}\r\n" for line in lines).encode())
        with self._sending:
            self._link = link

    def _say(self, link: Link, line: bytes) -> None:
        with self._sending:
            link.send(line)

    def _take(self, reader: Reader, words: list[str]) -> None:
        """Read one message.

        Args:
            words: what follows MSG on the line that announces it.
        """
        size = words[-1] if len(words) in (3, 4) else ""
        if not (size.isascii() and size.isdigit() and len(size) < 12 and int(size) <= _MOST_SKIPPED):
            raise HostError(_NO_NATS)
        if int(size) <= _MOST_BODY:
            self._came(words[0], words[2] if len(words) == 4 else "", reader.take(int(size)))
        else:
            reader.skip(int(size))
            self._is_lost(words[0], f"it has {size} bytes, expected at most {_MOST_BODY}")

    def _came(self, subject: str, reply: str, body: bytes) -> None:
        if subject.startswith(self._inbox):
            with self._up:
                if (answers := self._waiting.get(subject)) == []:
                    answers.append(body)
                self._up.notify_all()
            return
        message = both({"subject": subject, "replyTo": reply, "body": body})
        try:
            self._context.tell("DeliverMessage", message | {"message": message})
        except HostError as error:
            self._is_lost(subject, str(error))

    def _is_lost(self, subject: str, why: str) -> None:
        """Log that a message is lost; if very many are, log only some of them, with their number."""
        self._lost += 1
        if (now := time.monotonic()) - self._said >= _QUIET_SECONDS:
            others = f", and {self._lost - 1} others before it" if self._lost > 1 else ""
            self._context.log(f"wascc:messaging: a message to {subject[:80]} is lost{others}: {why}")
            self._lost, self._said = 0, now


def text_or_none(message: Any, name: str) -> str:
    """What a map has there; "" for nothing."""
    return text(message, name) if field(message, name) else ""
