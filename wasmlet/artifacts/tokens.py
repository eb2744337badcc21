"""How one becomes known to a registry: the challenges of RFC 7235, and the token servers that Bearer ones name.

A token is for one repository and one credential, and is kept until shortly before it ends, so that a thousand pods of
one image ask for it once. What credentials are sent is encrypted, unless the registry itself is one that may go
without.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import urlencode

import attrs
import httpx
import orjson

from wasmlet.artifacts.credentials import Credential
from wasmlet.artifacts.errors import BadContent, Denied
from wasmlet.artifacts.http import Http, body
from wasmlet.clock import Clock

CLIENT = "wasmlet"
_MAX_CHALLENGE, _MAX_ANSWER = 8 * 1024, 256 * 1024
_LIFE, _SLACK = 60.0, 10.0
_MAX_KEPT = 4096
_PIECE = re.compile(
    r"""[\s,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?""", re.ASCII | re.DOTALL
)
_TOKEN = re.compile(r"[\x21-\x7e]+")


@attrs.frozen
class Challenge:
    """What a registry wants: `scheme` in small letters, and its parameters."""

    scheme: str
    parameters: dict[str, str]


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read `WWW-Authenticate` headers; what is not to be understood is left out."""
    found: list[Challenge] = []
    for header in headers:
        position, text = 0, header[:_MAX_CHALLENGE]
        while match := _PIECE.match(text, position):
            position = match.end()
            name, quoted, plain = match.groups()
            if quoted is None and plain is None:
                found.append(Challenge(name.lower(), {}))
            elif found:
                value = re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) if quoted is not None else plain
                name, parameters = name.lower(), found[-1].parameters
                if name == "scope" and name in parameters:  # one parameter for each scope, where others write a list
                    value = f"{parameters[name]} {value}"
                parameters[name] = value
    return found


@attrs.frozen
class Asker:
    """Who asks for what.

    Attributes:
        place: address of the registry.
        scope: as `repository:a/b:pull`.
    """

    place: httpx.URL
    scope: str
    credential: Credential | None


class Tokens:
    """What to send as `Authorization`."""

    def __init__(self, http: Http, clock: Clock) -> None:
        self._http = http
        self._clock = clock
        self._kept: dict[Asker, tuple[str, float]] = {}

    def known(self, asker: Asker) -> str | None:
        """What served last time, and should serve still."""
        if asker.credential is not None and asker.credential.registry_token:
            return _bearer(asker.credential.registry_token)
        value, until = self._kept.get(asker, ("", 0.0))
        return value if value and self._clock.monotonic() < until else None

    async def obtain(self, asker: Asker, wanted: Iterable[Challenge]) -> str:
        """What the registry's challenge calls for.

        Raises:
            Denied: the credential will not do, or there is none.
            ArtifactError: the token server cannot be asked.
        """
        self._kept.pop(asker, None)
        by_scheme: dict[str, Challenge] = {}
        for challenge in wanted:  # the first of a kind counts, as in containerd
            by_scheme.setdefault(challenge.scheme, challenge)
        if bearer := by_scheme.get("bearer"):
            value, seconds = await self._token(asker, bearer.parameters)
        elif "basic" in by_scheme:
            value, seconds = _basic(asker), 3600.0
        else:
            asked = ", ".join(by_scheme)[:100] or "nothing"
            raise Denied(f"{asker.place.host} wants authentication by {asked}; expected Bearer or Basic")
        while len(self._kept) >= _MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[asker] = (value, self._clock.monotonic() + seconds - _SLACK)
        return value

    async def _token(self, asker: Asker, parameters: dict[str, str]) -> tuple[str, float]:
        realm = self._realm(asker, parameters.get("realm", ""))
        scopes = list(dict.fromkeys((parameters.get("scope") or "").split())) or [asker.scope]
        service = {"service": parameters["service"]} if parameters.get("service") else {}
        credential = asker.credential
        what = f"a token for {' '.join(scopes)}"
        if credential is not None and credential.identity_token:
            form = service | {
                "scope": " ".join(scopes),  # OAuth2 wants one list; the GET below a parameter for each scope
                "grant_type": "refresh_token",
                "refresh_token": credential.identity_token,
                "client_id": CLIENT,
            }
            request = self._http.answer(
                "POST",
                realm,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                authorization=None,
                raw=urlencode(form).encode(),
            )
        else:
            realm = realm.copy_merge_params({**service, "scope": scopes, "client_id": CLIENT})
            authorization = _basic(asker) if credential is not None else None
            request = self._http.answer("GET", realm, headers={}, authorization=authorization)
        async with request as response:
            if response.status_code != 200:
                raise await self._http.refuse(response, realm, what)
            answer = await body(response, _MAX_ANSWER)
        return _read(realm.host, answer)

    def _realm(self, asker: Asker, text: str) -> httpx.URL:
        try:
            realm = httpx.URL(text).copy_with(userinfo=b"", fragment=None)
        except (httpx.InvalidURL, ValueError, TypeError):
            realm = httpx.URL("")
        if realm.scheme not in ("http", "https") or not realm.host:
            raise BadContent(f"{asker.place.host} names a token server that is no address")
        if realm.scheme == "http" and asker.place.scheme == "https":
            raise BadContent(f"{asker.place.host} names a token server without TLS, {realm.host}: nothing is sent")
        return realm


def _read(host: str, answer: bytes) -> tuple[str, float]:
    try:
        found = orjson.loads(answer)
        token = found.get("token") or found.get("access_token")
        seconds = found.get("expires_in") or _LIFE
    except (ValueError, AttributeError):
        raise BadContent(f"the token server {host} did not answer with JSON that has a token") from None
    if not isinstance(token, str) or not token:
        raise BadContent(f"the token server {host} answered without a token")
    return _bearer(token), float(seconds) if isinstance(seconds, int | float) and 0 < seconds < 86400 else _LIFE


def _bearer(token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise BadContent("the token cannot be sent: expected printable ASCII without spaces")
    return f"Bearer {token}"


def _basic(asker: Asker) -> str:
    credential = asker.credential
    if credential is None or not credential.username:
        raise Denied(f"{asker.place.host} wants a user and a password for {asker.scope}, and there are none for it")
    both = f"{credential.username}:{credential.password}".encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(both).decode()}"
