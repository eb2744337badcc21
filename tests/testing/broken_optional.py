"""Providers with one fault each in what is optional or outlives them; see `tests.testing.broken_providers`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from tests.testing.found_by import found_by
from wasmlet.errors import NotFound
from wasmlet.model.inputs import Inputs
from wasmlet.model.pod import Pod, PodKey
from wasmlet.model.status import ContainerStatus, PodStatus, Terminated
from wasmlet.provider import LogOptions, NodeContext, NodeStatus, PodRecord, Streams
from wasmlet.testing import ReferenceProvider


@found_by(
    test_what_is_left_out_is_unsupported="exec",
    test_streams_into_an_unknown_pod="exec",
    test_exec_passes_output_and_the_exit_code="exec",
    test_exec_passes_input_until_its_end="exec",
    test_exec_without_input_has_none="exec",
    test_exec_ends_when_its_caller_leaves="exec",
    test_exec_where_nothing_runs="exec",
)
class DoesNotImplementExec(ReferenceProvider):
    """Says that it has no exec with Python's word for it."""

    async def exec(self, key: PodKey, container: str, command: Sequence[str], streams: Streams) -> int:
        raise NotImplementedError


@found_by(
    test_logs_tail_lines="logs",
)
class GivesAllForATailOfNothing(ReferenceProvider):
    """lines[-0:]"""

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        async for piece in super().logs(key, container, attrs.evolve(options, tail_lines=options.tail_lines or None)):
            yield piece


@found_by(test_logs_follow_ends_with_the_container="logs")
class FollowsForEver(ReferenceProvider):
    """Waits for more of a container that has ended."""

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        async for piece in super().logs(key, container, options):
            yield piece
        if options.follow:
            await asyncio.Event().wait()


@found_by(test_logs_of_what_is_not_there="logs")
class HasLogsOfAnybody(ReferenceProvider):
    """The log of what it does not know is empty."""

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        try:
            async for piece in super().logs(key, container, options):
                yield piece
        except NotFound:
            return


@found_by(test_logs_limit_bytes="logs")
class LimitsNothing(ReferenceProvider):
    """Leaves limit_bytes to others."""

    async def logs(self, key: PodKey, container: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        async for piece in super().logs(key, container, attrs.evolve(options, limit_bytes=None)):
            yield piece


@found_by(test_node_status_is_valid="node_status")
class MeasuresInWords(ReferenceProvider):
    """Has a capacity that no scheduler can read."""

    async def node_status(self) -> NodeStatus:
        return NodeStatus(capacity={"cpu": "2 cores"})


@found_by(test_ping_returns="ping", test_the_event_loop_is_not_held_up="ping")
class IsNotWell(ReferenceProvider):
    """Never answers a ping."""

    async def ping(self) -> None:
        await asyncio.Event().wait()


@found_by(test_stop_may_follow_a_start_that_failed="stop")
class StopsOnlyWhatStarted(ReferenceProvider):
    """Expects in stop what start has made."""

    async def start(self, context: NodeContext) -> None:
        await asyncio.sleep(0)
        self.directory = context.state_dir

    async def stop(self) -> None:
        del self.directory


@found_by(test_a_container_that_ends_after_a_restart_is_started_again="pod_status")
class ForgetsManifests(ReferenceProvider):
    """Finds its pods again after a restart, and has no use for what it is told of them then."""

    async def start(self, context: NodeContext) -> None:
        await super().start(context)
        for held in self.pods.values():
            held.pod = Pod({**held.pod.raw, "spec": {**held.pod.spec, "restartPolicy": "Never"}})

    async def update_pod(self, pod: Pod, inputs: Inputs) -> None:
        pass


@found_by(
    test_a_container_that_ends_after_a_restart_is_started_again="update_pod",
    test_pods_after_a_restart="list_pods",
    test_what_ended_while_the_provider_was_away="list_pods",
)
class ForgetsWithItsProcess(ReferenceProvider):
    """Does not survive, although it is said to."""

    async def stop(self) -> None:
        self.pods.clear()


@found_by(test_nothing_is_there_at_first="list_pods")
class ListsAStranger(ReferenceProvider):
    """Has a pod that nobody created, until somebody does."""

    async def list_pods(self) -> Sequence[PodRecord]:
        ended = Terminated(0, finished_at=datetime.now(UTC))
        stranger = PodRecord(PodKey("default", "stranger", "0"), PodStatus((ContainerStatus("c", ended),)))
        return [stranger] if not self.created else await super().list_pods()


@found_by(
    test_the_status_of_an_ended_pod_stays="pod_status",
    test_create_pod_again_does_not_run_the_pod_twice="create_pod",
    test_pod_status_and_list_pods_agree="list_pods",
    test_changes_end_with_the_newest="changes",
    test_what_ended_while_the_provider_was_away="create_pod",
)
class EndsNow(ReferenceProvider):
    """A pod that has ended has always ended just now; without a stream of changes, each poll finds another status."""

    async def pod_status(self, key: PodKey) -> PodStatus:
        status = await super().pod_status(key)
        return attrs.evolve(status, containers=tuple(map(self._now, status.containers)))

    async def list_pods(self) -> Sequence[PodRecord]:
        return [PodRecord(record.key, await self.pod_status(record.key)) for record in await super().list_pods()]

    def changes(self) -> Any:
        return None

    @staticmethod
    def _now(container: ContainerStatus) -> ContainerStatus:
        if not isinstance(container.state, Terminated):
            return container
        return attrs.evolve(container, state=attrs.evolve(container.state, finished_at=datetime.now(UTC)))


@found_by(test_name_and_config="name")
class HasAFineName(ReferenceProvider):
    """Is called what no label may be."""

    name = "My Provider"


@found_by(test_name_and_config="Config")
class ExplainsNothing(ReferenceProvider):
    """Has a setting without a help text."""

    @attrs.frozen
    class Config:
        endpoint: str = "http://127.0.0.1"
