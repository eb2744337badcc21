"""Authentication at a registry: the challenges of RFC 7235, and the token servers that Bearer challenges name.

A token is valid for one repository and one credential. It is kept until shortly before it expires, so that a thousand
pods with the same image need one token request. Credentials are sent over TLS only, unless the registry itself may be
used without TLS.
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
from wasmlet.artifacts.http import Http, body, is_address
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
    """One challenge of a `WWW-Authenticate` header: the authentication scheme in lower case, and its parameters."""

    scheme: str
    parameters: dict[str, str]


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read `WWW-Authenticate` headers; a part that cannot be read is left out."""
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
                if name == "scope" and name in parameters:  # several scopes, each in a parameter of its own
                    value = f"{parameters[name]} {value}"
                parameters[name] = value
    return found


@attrs.frozen
class TokenRequest:
    """What a token is for, and with whose credential it is asked for.

    Attributes:
        registry: the URL of the registry.
        scope: the permission that is wanted, as `repository:a/b:pull`.
    """

    registry: httpx.URL
    scope: str
    credential: Credential | None

    @property
    def name(self) -> str:
        """The registry's host, with its port if there is one."""
        return self.registry.netloc.decode("ascii", "replace")


class Tokens:
    """Finds the value of the `Authorization` header for requests to registries, and remembers it."""

    def __init__(self, http: Http, clock: Clock) -> None:
        self._http = http
        self._clock = clock
        self._kept: dict[TokenRequest, tuple[str, float]] = {}

    def known(self, token_request: TokenRequest) -> str | None:
        """The `Authorization` that was accepted last time, if it has not expired; else None."""
        if token_request.credential is not None and token_request.credential.registry_token:
            return _bearer(token_request.credential.registry_token)
        value, until = self._kept.get(token_request, ("", 0.0))
        return value if value and self._clock.monotonic() < until else None

    async def obtain(self, token_request: TokenRequest, wanted: Iterable[Challenge]) -> str:
        """Get the `Authorization` that one of these challenges asks for; may ask a token server.

        Raises:
            Denied: the credential is not accepted, or there is none.
            ArtifactError: the token server cannot be asked.
        """
        self._kept.pop(token_request, None)
        by_scheme: dict[str, Challenge] = {}
        for challenge in wanted:  # the first of each scheme counts, as in containerd
            by_scheme.setdefault(challenge.scheme, challenge)
        if bearer := by_scheme.get("bearer"):
            value, seconds = await self._token(token_request, bearer.parameters)
        elif "basic" in by_scheme:
            value, seconds = _basic(token_request), 3600.0
        else:
            asked = ", ".join(by_scheme)[:100] or "nothing"
            raise Denied(f"{token_request.name} wants authentication by {asked}; expected Bearer or Basic")
        while len(self._kept) >= _MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[token_request] = (value, self._clock.monotonic() + seconds - _SLACK)
        return value

    async def _token(self, token_request: TokenRequest, parameters: dict[str, str]) -> tuple[str, float]:
        realm = self._realm(token_request, parameters.get("realm", ""))
        scopes = list(dict.fromkeys((parameters.get("scope") or "").split())) or [token_request.scope]
        service = {"service": parameters["service"]} if parameters.get("service") else {}
        credential = token_request.credential
        what = f"a token for {' '.join(scopes)}"
        if credential is not None and credential.identity_token:
            form = service | {
                "scope": " ".join(scopes),  # OAuth2 wants one list, the GET below one parameter per scope
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
            authorization = _basic(token_request) if credential is not None else None
            request = self._http.answer("GET", realm, headers={}, authorization=authorization)
        async with request as response:
            if response.status_code != 200:
                raise await self._http.error_of(response, realm, what, credential)
            answer = await body(response, _MAX_ANSWER)
        return _read(realm.netloc.decode("ascii", "replace"), answer)

    def _realm(self, token_request: TokenRequest, text: str) -> httpx.URL:
        try:
            realm = httpx.URL(text).copy_with(userinfo=b"", fragment=None)
        except (httpx.InvalidURL, ValueError, TypeError):
            realm = httpx.URL("")
        if not is_address(realm):
            raise BadContent(f"{token_request.name} names a token server that is no address")
        if realm.scheme == "http" and token_request.registry.scheme == "https":
            raise BadContent(f"{token_request.name} names a token server without TLS, {realm.host}: nothing is sent")
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


def _basic(token_request: TokenRequest) -> str:
    credential = token_request.credential
    if credential is None or not credential.username:
        raise Denied(
            f"{token_request.name} wants a user and a password for {token_request.scope}, and there are none for it"
        )
    both = f"{credential.username}:{credential.password}".encode("utf-8", "surrogateescape")
    return f"Basic {base64.b64encode(both).decode()}"
