"""OpenID Connect, the one `auth-provider` that client-go still has: an ID token, renewed with a refresh token.

kubernetes-asyncio asks the issuer, but over connections that are made here. Its own connections do not verify an issuer
if the kubeconfig has no CA for it, and choose proxies by other rules. A renewed token is kept in memory (`grants`) and
in the kubeconfig (`logins`), and so is a refresh token that the issuer gives in place of the one that was used.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import importlib
import json
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import structlog

from wasmlet.errors import ConfigError
from wasmlet.kube import logins
from wasmlet.kube.connections import opened_session
from wasmlet.kube.grants import Granted
from wasmlet.kube.kubeconfig import AuthProvider
from wasmlet.proxies import Proxies
from wasmlet.tls import client_context

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 30.0
_EARLY = timedelta(seconds=10)


async def ask(
    provider: AuthProvider, now: datetime, last: Granted | None = None, refused: Granted | None = None
) -> Granted:
    """The ID token of the kubeconfig, or a new one where that has run out, which is then written into it.

    Args:
        last: what was given last for this kubeconfig: its refresh token may be another one.
        refused: what the API server does not accept any more.

    Raises:
        ConfigError: there is no valid ID token, and the issuer gives no new one.
    """
    config = provider.config
    for name in ("idp-issuer-url", "client-id"):
        if not config.get(name):
            raise ConfigError(f"auth-provider oidc: its {name} is missing")
    token = config.get("id-token", "")
    if token and (until := _end(token)) > now and (refused is None or token != refused.token):
        return Granted(token, until=until)
    refresh = (last.refresh_token if last is not None else "") or config.get("refresh-token", "")
    if not refresh:
        raise ConfigError("auth-provider oidc: its id-token is missing or has run out, and it has no refresh-token")
    token, following = await _refreshed(config, refresh)
    granted = Granted(token, until=_end(token), refresh_token=following)
    why_not = await asyncio.to_thread(logins.keep, provider, {"id-token": token, "refresh-token": following})
    if why_not and following != config.get("refresh-token"):
        log.warning(
            "the issuer gave another refresh token, which the kubeconfig does not have: it is lost when this ends",
            kubeconfig=str(provider.file),
            why=why_not,
        )
    return granted


async def _refreshed(config: Mapping[str, str], refresh: str) -> tuple[str, str]:
    """An ID token, and the refresh token to ask for the next one with."""
    # The import takes half a second and 60 MiB: not on the loop, and only where it is needed.
    library = await asyncio.to_thread(importlib.import_module, "kubernetes_asyncio.config.openid")
    context = await asyncio.to_thread(_context, config)

    issuer, secret = config["idp-issuer-url"], config.get("client-secret", "")
    proxy = Proxies.of_environment().before(issuer)
    client = base64.b64encode(f"{quote_plus(config['client-id'])}:{quote_plus(secret)}".encode()).decode()

    class Requestor(library.OpenIDRequestor):  # type: ignore[misc, name-defined]
        def _client_session(self) -> aiohttp.ClientSession:
            headers = {**self._default_headers, "Authorization": f"Basic {client}"}
            return opened_session(proxy, context, headers=headers, raise_for_status=True)

    requestor: Any = Requestor(config["client-id"], secret, issuer)
    try:
        async with asyncio.timeout(REFRESH_SECONDS):
            answer = await requestor.refresh_token(refresh)
        token, following = answer["id_token"], answer.get("refresh_token") or refresh
    except TimeoutError:
        raise ConfigError(f"auth-provider oidc: {issuer} did not answer in time") from None
    except Exception as error:  # the library's own, aiohttp's, or what a wrong answer makes it stumble over
        raise ConfigError(
            f"auth-provider oidc: {issuer} gave no new id-token ({type(error).__name__}); log in again"
        ) from None
    if not (isinstance(token, str) and isinstance(following, str)):
        raise ConfigError(f"auth-provider oidc: {issuer} gave an id-token or a refresh-token that is no text")
    return token, following


def _context(config: Mapping[str, str]) -> ssl.SSLContext:
    try:
        data = base64.b64decode(config.get("idp-certificate-authority-data", ""), validate=True)
        if not data and (file := config.get("idp-certificate-authority")):
            data = Path(file).read_bytes()
        return client_context(data or None)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"auth-provider oidc: the issuer's CA cannot be used: {reason}") from None


def _end(token: str) -> datetime:
    """When a token ends, less a few seconds, so that a token that is sent before is still good when it arrives."""
    parts = token.split(".")
    try:
        if len(parts) != 3:
            raise ValueError
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC) - _EARLY
    except (binascii.Error, ValueError, TypeError, KeyError, OverflowError, OSError):
        raise ConfigError("auth-provider oidc: expected an id-token that says when it ends, found another") from None
