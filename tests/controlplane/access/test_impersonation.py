"""Requests in somebody else's name: allowed by the verb `impersonate`, by name, and then judged as theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from yarl import URL

from tests.controlplane.client import Api
from wasmlet.controlplane.access.rules import Rule
from wasmlet.testing import ControlPlane

HOST = "system:serviceaccount:wasmlet:host"
USER = Rule(("impersonate",), ("users",), names=("system:node:edge-1",))
GROUP = Rule(("impersonate",), ("groups",), names=("system:nodes",))
PODS = "/api/v1/pods?fieldSelector=spec.nodeName%3Dedge-1"


@attrs.frozen
class Impersonator:
    """Somebody's requests in the name of somebody else."""

    api: Api
    headers: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, api: Api, name: str, *groups: str, **others: str) -> Impersonator:
        """`others` are headers, with "_" for "-"."""
        named = [("Impersonate-User", name)] if name else []
        named += [("Impersonate-Group", group) for group in groups]
        return cls(api, [*named, *((key.replace("_", "-"), value) for key, value in others.items())])

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        url = URL(self.api.server + path, encoded=True)
        headers = [*self.api.headers.items(), *self.headers]
        async with self.api.session.request(method, url, json=body, headers=headers) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def host(control_plane: ControlPlane, login: Any) -> Api:
    """Somebody who may do nothing but make requests as the node edge-1."""
    control_plane.grant(HOST, USER, GROUP)
    found: Api = await login(control_plane.user_kubeconfig(HOST, token=True))
    return found


async def test_a_request_is_judged_as_the_node_s(host: Api) -> None:
    node = Impersonator.of(host, "system:node:edge-1", "system:nodes")
    assert (await node("GET", PODS))[0] == 200
    assert (await host("GET", PODS))[0] == 403
    status, answer = await node("GET", "/api/v1/pods")
    assert status == 403
    assert 'User "system:node:edge-1" cannot list' in answer["message"]
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge-2"}}
    status, answer = await node("POST", "/api/v1/nodes", body)
    assert status == 403
    assert "edge-2" in answer["message"]


@pytest.mark.parametrize(
    ("name", "groups", "refused"),
    [
        ("system:node:edge-2", ["system:nodes"], 'users "system:node:edge-2" is forbidden'),
        ("system:node:edge-1", ["system:nodes", "system:masters"], 'groups "system:masters" is forbidden'),
        ("admin", [], 'users "admin" is forbidden'),
        ("system:serviceaccount:kube-system:default", [], 'serviceaccounts "default" is forbidden'),
    ],
)
async def test_nobody_else_can_be_impersonated(host: Api, name: str, groups: list[str], refused: str) -> None:
    status, answer = await Impersonator.of(host, name, *groups)("GET", PODS)
    assert status == 403
    assert answer["message"].startswith(refused)
    assert f'User "{HOST}" cannot impersonate resource' in answer["message"]


async def test_a_uid_and_what_else_is_said_need_rights_of_their_own(control_plane: ControlPlane, host: Api) -> None:
    node = ("system:node:edge-1", "system:nodes")
    for header, rule in (
        ({"Impersonate_Uid": "u-1"}, Rule(("impersonate",), ("uids",), "authentication.k8s.io")),
        ({"Impersonate_Extra_scopes": "view"}, Rule(("impersonate",), ("userextras/scopes",), "authentication.k8s.io")),
    ):
        assert (await Impersonator.of(host, *node, **header)("GET", PODS))[0] == 403
        control_plane.grant(HOST, rule)
        assert (await Impersonator.of(host, *node, **header)("GET", PODS))[0] == 200


async def test_a_group_without_a_user_is_an_error(host: Api) -> None:
    assert (await Impersonator.of(host, "", "system:nodes")("GET", PODS))[0] == 500


async def test_a_service_account_has_its_groups(control_plane: ControlPlane, login: Any) -> None:
    master = await login(control_plane.user_kubeconfig("root", ["system:masters"], token=True))
    control_plane.grant("system:serviceaccounts:team", Rule(("list",), ("pods",)))
    account = Impersonator.of(master, "system:serviceaccount:team:builder")
    assert (await account("GET", "/api/v1/pods"))[0] == 200
