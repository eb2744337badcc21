"""Applies the objects of a manifest for `wasmlet demo`, and prints what becomes of their pods."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import attrs

from wasmlet.cli.demo.follow import Earlier, Say, follow
from wasmlet.cli.demo.manifests import path_of
from wasmlet.cli.demo.serving import WORKLOADS, answer, chosen, completed, rolled_out, serves
from wasmlet.controlplane.objects.services import warnings
from wasmlet.errors import WasmletError
from wasmlet.kube import Client, errors
from wasmlet.kube.client import MERGE_PATCH
from wasmlet.model.pod import Pod


class DemoFailed(WasmletError):
    """A pod did not do what the demo shows."""


@attrs.frozen
class Show:
    """Applies objects, and shows what becomes of them.

    Attributes:
        earlier: reads the logs that the node still has of a container's earlier instances.
        say: called with each line to print.
        hint: called with each line that a user may type.
        busy: called with what the node is working at; "" for nothing.
        strict: whether unknown fields are errors. The first object takes half a second longer then.
    """

    client: Client
    earlier: Earlier
    say: Say
    hint: Say
    busy: Say = lambda what: None
    strict: bool = True

    async def run(self, objects: Sequence[dict[str, Any]]) -> None:
        """Apply the objects and tell what becomes of the pods: that they ended, or that they answer for a Service.

        Raises:
            DemoFailed: an object is refused, a pod failed, or one that is to serve does not.
        """
        made = await self._apply(objects)
        services = [body for body in made if body["kind"] == "Service" and serves(body)]
        pods = [Pod(body) for body in made if body["kind"] == "Pod"]
        servers = [pod for pod in pods if any(chosen(service, pod) for service in services)]
        workloads = [body for body in made if body["kind"] in WORKLOADS]
        jobs = [body for body in made if body["kind"] == "Job"]
        async with asyncio.TaskGroup() as group:
            several = len(pods) > 1
            follows = {pod.key: group.create_task(self._follow(pod, several=several)) for pod in pods}
            rollouts = [group.create_task(rolled_out(self.client, body, self.say)) for body in workloads]
            rollouts += [group.create_task(completed(self.client, body, self.say)) for body in jobs]
            ends = [follows[pod.key] for pod in pods if pod not in servers]
            problems = [problem for task in (*ends, *rollouts) if (problem := await task)]
            for service in services if not problems else ():
                own = [follows[pod.key] for pod in servers if chosen(service, pod)]
                if problem := await self._answer(service, () if workloads else own):
                    problems.append(problem)
            for pod in servers:  # they serve until they are deleted
                task = follows[pod.key]
                if not task.done():
                    task.cancel()
                elif problem := task.result():
                    problems.append(problem)
        if problems:
            raise DemoFailed("\n".join(problems))

    async def _follow(self, pod: Pod, *, several: bool) -> str | None:
        problem = await follow(self.client, pod, self.say, self.earlier, self.busy, several=several)
        return f"{pod.name}: {problem}" if problem and several else problem

    async def _answer(self, service: dict[str, Any], servers: Sequence[asyncio.Task[str | None]]) -> str | None:
        """Show what a Service answers; what went wrong, as that its pods have all ended.

        Args:
            servers: follow the pods that are the only ones of the Service; none where there may be others.
        """
        work = asyncio.ensure_future(answer(self.client, service, self.say, self.hint))
        ended = asyncio.ensure_future(asyncio.wait(servers)) if servers else None
        try:
            await asyncio.wait(filter(None, (work, ended)), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            return f"service/{service['metadata']['name']}: its pods have ended, and none was ready to serve"
        finally:
            await _end(*filter(None, (work, ended)))

    async def _apply(self, objects: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Apply the objects in their order; what they are then."""
        out = []
        params = {"fieldValidation": "Strict"} if self.strict else {}
        for body in objects:
            name = body["metadata"].get("name") or body["metadata"]["generateName"]
            path = path_of(body)
            try:
                try:
                    made = await self.client.request("POST", path, params=params, body=body)
                except errors.AlreadyExists:  # as a RuntimeClass that the demo has made
                    made = await self.client.patch(f"{path}/{name}", body, MERGE_PATCH)
            except errors.ApiError as error:
                raise DemoFailed(f"the {body['kind'].lower()} {name} is not accepted: {error}") from None
            metadata = made["metadata"]
            where = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
            self.say(f"applied        {body['kind'].lower()} {where}")
            for warning in warnings(made) if body["kind"] == "Service" else ():
                self.say(f"note           {warning}")
            out.append(made)
        return out


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what is not done, and wait for it."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
