"""An agent keeps to its own description, whatever it is asked: OpenAPI 3.1, with requests made at random."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from wasmlet_agent.agent import Agent, Places
from wasmlet_agent.auth import Guard
from wasmlet_agent.openapi import document
from wasmlet_agent.server import Server

from tests.remote.agents import REAL, calling, running
from tests.remote.beside import agent_beside
from wasmlet.testing import ReferenceProvider

EXAMPLES = 8
ENDLESS = "/v1/changes"
BATCHES = (("post", "/v1/pods"), ("post", "/v1/deletes"), ("post", "/v1/forgets"))
"""Lines, of which schemathesis makes none; see test_batches."""
OF_IMAGES = ("/v1/images", "/v1/blobs/{digest}")
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@pytest.mark.timeout(300)
async def test_requests_at_random_are_answered_as_described(tmp_path: Path) -> None:
    async with running(tmp_path / "state") as agent, calling(agent) as caller:
        described = (await caller.ask("GET", "/openapi.json")).json()
        assert described == document()
        for path in OF_IMAGES:  # a provider that takes none answers 501
            del described["paths"][path]
        await asyncio.to_thread(try_all, described, agent.url, caller.session)
        assert await caller.pods() is not None
    assert not [line for line in agent.log if "a request has failed" in line]


async def test_an_agent_describes_itself_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may ask, and it takes long."""
    made: list[int] = []
    monkeypatch.setattr("wasmlet_agent.server.document", lambda: made.append(1) or {"openapi": "3.1.0"})
    async with agent_beside(tmp_path / "agent") as beside, httpx.AsyncClient(base_url=beside.proxy.url) as client:
        for _ in range(3):
            assert (await client.get("/openapi.json")).json() == {"openapi": "3.1.0"}
    assert made == [1]


def try_all(described: dict[str, Any], url: str, session: int) -> None:
    schema = schemathesis.openapi.from_dict(described)
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path == ENDLESS or (operation.method, operation.path) in BATCHES:
            continue
        headers = {"Wasmlet-Session": str(session)} if operation.path != "/v1/session" else None
        for mode in (POSITIVE, NEGATIVE):
            if mode is NEGATIVE and operation.path in ("/healthz", "/v1/node", "/v1/stats", "/v1/pods"):
                continue  # there is nothing to get wrong in them
            try_one(operation.as_strategy(mode, headers=headers), url)


def try_one(cases: Any, url: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def answered(case: Case) -> None:
        response = case.call(base_url=url, timeout=30)
        if case.path == "/v1/session" and response.status_code == 409:
            return  # of another node than the agent is
        case.validate_response(response, checks=[getattr(schemathesis.checks, name) for name in CHECKS])

    answered()


@pytest.mark.timeout(300)
async def test_so_are_images_that_are_brought(tmp_path: Path) -> None:
    async with running(tmp_path / "state", "--provider=wasmtime", program=REAL) as agent, calling(agent) as caller:
        described = document()
        described["paths"] = {path: described["paths"][path] for path in OF_IMAGES}
        await asyncio.to_thread(try_all, described, agent.url, caller.session)
    assert not [line for line in agent.log if "a request has failed" in line]


async def test_every_route_is_described(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    async with Agent(ReferenceProvider, Places(tmp_path / "state")) as agent:
        app = Server(agent, Guard(open=True)).runner().app
        routes = {
            (route.method.lower(), str(route.resource.canonical))
            for route in app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }
    described = {(method, path) for path, methods in document()["paths"].items() for method in methods}
    assert routes - {("get", "/openapi.json")} == described
