"""`wascc:messaging`: messages by a NATS server that the pod was granted.

Source: NATS's protocol for clients. TLS is not spoken.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from ..capability import Context, HostError, Link
from ..messages import BadMessage, both, field, number, octets, text

_PORT = 4222
_SUBJECT = re.compile(r"[^\s\x00-\x1f.*>]+(\.[^\s\x00-\x1f.*>]+)*")
_MOST_BODY = 2**20
_LONGEST_LINE = 4096
_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between tries to connect again."""
_MOST_MILLISECONDS = 60_000
_INBOXES = 64
_MOST_COMPLAINTS = 20
_CREDENTIALS = {"auth_token": "NATS_TOKEN", "user": "NATS_USER", "pass": "NATS_PASSWORD"}
"""By what the protocol calls them: the variables of the container that they are in."""


class Messaging:
    """Publishes and asks for actors, and tells them of messages to the subjects that the pod names.

    The connection is there from the start of the container, since messages may come at any time.
    """

    def __init__(self, context: Context) -> None:
        parts = urlsplit(context.settings.get("url", ""))
        self._host, self._port = parts.hostname or "", parts.port or _PORT
        subjects = context.settings.get("subscriptions", "")
        self._subjects = [one for one in re.split(r"[\s,]+", subjects) if one]
        self._context = context
        self._sending = threading.Lock()
        self._link: Link | None = None
        self._tries = 0
        """How often it was tried to connect since anything has come."""
        self._up = threading.Condition()
        self._inbox = f"_INBOX.{secrets.token_hex(12)}"
        self._waiting: dict[str, list[bytes]] = {}
        context.begin(self._run)

    def call(self, binding: str, operation: str, message: Any) -> Any:
        """See `Capability`. Operations: `Publish`, `Request`."""
        if operation == "Publish":
            found = field(message, "message") or message
            self._publish(text(found, "subject"), text_or_none(found, "replyTo"), octets(field(found, "body")))
            return None
        if operation == "Request":
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
        """Be connected; in a thread of its own, for as long as the container lives."""
        while True:
            try:
                link = self._context.dial(self._host, self._port)
                try:
                    self._listen(link)
                finally:
                    with self._sending:
                        self._link = None
                    link.close()
            except ValueError as error:  # HostError is one; and what a server says may be no NATS at all
                if not self._tries:
                    self._context.log(f"wascc:messaging: {error}; trying again")
            time.sleep(_PAUSES[min(self._tries, len(_PAUSES) - 1)])
            self._tries += 1

    def _listen(self, link: Link) -> None:
        """Take what comes, until the connection ends."""
        stream = _Stream(link)
        if not stream.line().startswith("INFO "):
            raise HostError("what answers is no NATS server")
        hello = {"verbose": False, "pedantic": False, "lang": "wasmlet", "version": "1", "headers": False}
        env = self._context.env
        hello |= {name: env[variable] for name, variable in _CREDENTIALS.items() if env.get(variable)}
        subscriptions = [f"{self._inbox}.*", *self._subjects]
        lines = [f"CONNECT {json.dumps(hello)}", *(f"SUB {one} {at}" for at, one in enumerate(subscriptions))]
        link.send("".join(f"{line}\r\n" for line in lines).encode())
        with self._sending:
            self._link = link
        complaints = 0
        while True:
            verb, _, rest = stream.line().partition(" ")
            if verb == "PING":
                with self._sending:
                    link.send(b"PONG\r\n")
            elif verb == "MSG":
                subject, _, *reply, size = rest.split()
                self._tries = 0
                if not (size.isascii() and size.isdigit()) or int(size) > _MOST_BODY:
                    raise HostError("the NATS server sends a message that is too large")
                self._came(subject, reply[0] if reply else "", stream.take(int(size)))
            elif verb == "-ERR" and (complaints := complaints + 1) <= _MOST_COMPLAINTS:
                self._context.log(f"wascc:messaging: the NATS server says {rest[:200]}")

    def _came(self, subject: str, reply: str, body: bytes) -> None:
        if subject.startswith(self._inbox):
            with self._up:
                if (answers := self._waiting.get(subject)) is not None:
                    answers.append(body)
                self._up.notify_all()
            return
        message = both({"subject": subject, "replyTo": reply, "body": body})
        try:
            self._context.tell("DeliverMessage", message | {"message": message})
        except HostError as error:
            self._context.log(f"wascc:messaging: a message to {subject[:80]} is lost: {error}")


class _Stream:
    """Lines and bytes of a connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._have = bytearray()

    def line(self) -> str:
        while (end := self._have.find(b"\r\n")) < 0:
            if len(self._have) > _LONGEST_LINE * 16:
                raise HostError("the NATS server sends a line that is too long")
            self._fill()
        found = bytes(self._have[:end])
        del self._have[: end + 2]
        return found.decode(errors="replace")

    def take(self, size: int) -> bytes:
        while len(self._have) < size + 2:
            self._fill()
        found = bytes(self._have[:size])
        del self._have[: size + 2]
        return found

    def _fill(self) -> None:
        data = self._link.receive(patient=True)
        if not data:
            raise HostError("the NATS server has closed the connection")
        self._have += data


def text_or_none(message: Any, name: str) -> str:
    """What a map has there; "" for nothing."""
    return text(message, name) if field(message, name) else ""
