"""Tokens of an issuer: renewed in time, and a refresh token that is replaced is kept where all find it."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import yaml

from tests.kube.judge import At, accepted, environment, issued, jwt, kubectl_says
from wasmlet.errors import ConfigError
from wasmlet.kube import Client, Identity, load_identity, logins
from wasmlet.testing import FakeClock


async def test_an_issuer_that_is_not_trusted_gets_no_secret(at: At) -> None:
    user = issued(at, refresh_token="refresh", idp_certificate_authority_data=...)
    with pytest.raises(ConfigError, match="gave no new id-token"):
        await load_identity(at.file("k", at.config(user)))
    assert at.server.refreshed == []


async def test_an_id_token_is_renewed_when_it_ends(at: At) -> None:
    clock = FakeClock()
    user = issued(at, id_token=jwt(clock.now().year), refresh_token="refresh")
    identity = await load_identity(at.file("k", at.config(user)), clock=clock)
    assert identity.until is not None
    assert at.server.refreshed == []
    clock.advance((identity.until - clock.now()).total_seconds())
    async with Client(identity, clock=clock) as client:
        for _ in range(3):
            await client.get("/api/v1")
    assert at.server.refreshed == ["refresh"]


async def renewed(identities: list[Identity], at: At, clock: FakeClock) -> list[Identity]:
    """All of them anew, once their token has ended; the next one that the issuer gives ends a year later."""
    until = identities[0].until
    assert until is not None
    clock.advance((until - clock.now()).total_seconds())
    at.server.tokens_end += 1
    return list(await asyncio.gather(*(identity.reload() for identity in identities)))


def contents(kubeconfig: Path) -> Any:
    return yaml.safe_load(kubeconfig.read_text())


def login(kubeconfig: Path) -> dict[str, str]:
    """What a kubeconfig has for its user's issuer."""
    config: dict[str, str] = contents(kubeconfig)["users"][0]["user"]["auth-provider"]["config"]
    return config


def with_id_token(kubeconfig: Path, token: str) -> None:
    kubeconfig.write_text(kubeconfig.read_text().replace(login(kubeconfig)["id-token"], token))


def mode(path: Path, wanted: int | None = None) -> int:
    if wanted is not None:
        path.chmod(wanted)
    return stat.S_IMODE(path.stat().st_mode)


class TestARefreshTokenThatTheIssuerReplaces:
    """client-go writes it into the kubeconfig: the old one is of no use any more, to no process."""

    @pytest.fixture
    def clock(self, at: At) -> FakeClock:
        clock = FakeClock()
        at.server.rotates, at.server.tokens_end = True, clock.now().year + 2
        return clock

    @pytest.fixture
    def kubeconfig(self, at: At, clock: FakeClock) -> Path:
        user = issued(at, id_token=jwt(clock.now().year), refresh_token="refresh")
        return at.file("k", at.config(user))

    async def test_is_written_into_the_kubeconfig(self, at: At, clock: FakeClock, kubeconfig: Path) -> None:
        before = contents(kubeconfig)
        mode(kubeconfig, 0o640)
        link = at.directory / "link"
        link.symlink_to(kubeconfig)
        identities = [await load_identity(link, clock=clock) for _ in range(3)]
        for _ in range(3):
            identities = await renewed(identities, at, clock)
        assert at.server.refreshed == ["refresh", "refresh+", "refresh++"]
        assert login(kubeconfig)["refresh-token"] == "refresh+++"
        assert login(kubeconfig)["id-token"] == jwt(at.server.tokens_end)
        assert link.is_symlink()
        assert mode(kubeconfig) == 0o640
        assert sorted(path.name for path in at.directory.iterdir()) == ["k", "link", "server.pem"]
        after = contents(kubeconfig)
        after["users"][0]["user"] = before["users"][0]["user"]
        assert after == before

    async def test_is_the_next_process_s_and_kubectl_s(
        self, at: At, clock: FakeClock, kubeconfig: Path, kubectl: Path
    ) -> None:
        await renewed([await load_identity(kubeconfig, clock=clock)], at, clock)
        at.server.tokens_end = 2999
        assert login(kubeconfig)["refresh-token"] == "refresh+"
        with_id_token(kubeconfig, jwt(2001))  # which has run out on kubectl's clock, too
        judged, why = await kubectl_says(kubectl, kubeconfig, environment({}, at.directory))
        assert judged, why
        assert at.server.refreshed == ["refresh", "refresh+"]
        assert login(kubeconfig)["refresh-token"] == "refresh++"
        assert await accepted(await load_identity(kubeconfig, clock=clock))
        assert at.server.refreshed == ["refresh", "refresh+"]

    @pytest.mark.parametrize("why", ["nobody may write it", "somebody changed it meanwhile", "it is gone"])
    async def test_is_kept_in_memory_where_the_file_cannot_have_it(
        self, at: At, clock: FakeClock, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, why: str
    ) -> None:
        identities = [await load_identity(kubeconfig, clock=clock) for _ in range(3)]
        before = contents(kubeconfig)
        if why == "nobody may write it":
            mode(kubeconfig, 0o444)
        else:
            real = logins.keep

            def meanwhile(*args: Any) -> str:
                """The file as it is when the issuer has answered."""
                text = kubeconfig.read_text()
                if why == "it is gone":
                    kubeconfig.unlink()
                else:
                    kubeconfig.write_text(text.replace("refresh-token: refresh", "refresh-token: another"))
                try:
                    return real(*args)
                finally:
                    kubeconfig.write_text(text)

            monkeypatch.setattr(logins, "keep", meanwhile)
        with structlog.testing.capture_logs() as lines:
            for _ in range(3):
                identities = await renewed(identities, at, clock)
        assert at.server.refreshed == ["refresh", "refresh+", "refresh++"]
        assert contents(kubeconfig) == before
        assert [line["log_level"] for line in lines] == ["warning"] * 3
        assert "refresh+" not in repr(lines)

    async def test_gives_way_to_a_new_login(self, at: At, clock: FakeClock, kubeconfig: Path) -> None:
        identities = await renewed([await load_identity(kubeconfig, clock=clock)], at, clock)
        at.server.refresh_token = "another"
        at.file("k", at.config(issued(at, id_token=jwt(2000), refresh_token="another")))
        await identities[0].reload()
        assert at.server.refreshed == ["refresh", "another"]

    async def test_is_used_when_the_api_server_refuses_an_id_token(
        self, at: At, clock: FakeClock, kubeconfig: Path
    ) -> None:
        at.server.tokens_end = 2998  # which this server does not know
        with_id_token(kubeconfig, jwt(2001))
        identity = await load_identity(kubeconfig, clock=clock)
        at.server.tokens_end = 2999
        assert await accepted(identity)
        assert at.server.refreshed == ["refresh", "refresh+"]
