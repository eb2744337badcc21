"""CPU and memory of nodes and pods: two lists of the Metrics API, and one request for each node that it does not have.

The Metrics API (metrics-server) is asked first. A node that it does not know is asked itself, by way of the API server
(`nodes/NAME/proxy/stats/summary`), which takes a right that is as strong as exec in all pods of the node. If one of the
two ways is missing or not allowed, it is tried again after a minute. So is a node that has no summary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import attrs
import orjson

from wasmlet.cli.top.cluster import NODE_LABEL
from wasmlet.clock import Clock
from wasmlet.kube import Client, errors, paths
from wasmlet.model.pod import Raw
from wasmlet.model.quantity import Quantity

_METRICS = "/apis/metrics.k8s.io/v1beta1"
_AGAIN_SECONDS = 60.0
_ANSWER_SECONDS = 10.0
_ANSWER_BYTES = 16 * 2**20
"""The longest Summary that is read: some thousands of pods."""
_AT_ONCE = 4
_ILL_FORMED = (AttributeError, KeyError, TypeError, ValueError)
"""The errors that are raised when an answer does not have the expected form."""
MOST_ASKED = 64
"""How many nodes are asked themselves, at most."""
NEEDS = (
    "CPU and memory need the Metrics API (rights: get, list of nodes and pods in metrics.k8s.io), "
    "or the right to get nodes/proxy, which is as strong as exec"
)


@attrs.frozen
class Amount:
    """What is taken: CPU in cores, memory in bytes (the working set)."""

    cpu: float
    memory: int


@attrs.frozen
class Usage:
    """The CPU and memory that nodes and pods take, at one time.

    Attributes:
        pods: by namespace and name.
        remark: why figures of all or some nodes are missing; "" if none are missing.
    """

    nodes: Mapping[str, Amount] = attrs.field(factory=dict)
    pods: Mapping[tuple[str, str], Amount] = attrs.field(factory=dict)
    remark: str = ""


class UsageReader:
    """Reads CPU and memory.

    Args:
        namespace: whose pods; None for all.
    """

    def __init__(self, client: Client, namespace: str | None, clock: Clock) -> None:
        self._client = client
        self._pods = f"{_METRICS}/namespaces/{namespace}/pods" if namespace else f"{_METRICS}/pods"
        self._clock = clock
        self._without_metrics = self._without_proxy = float("-inf")
        """Until when each way is not tried."""
        self._without: dict[str, float] = {}
        """By name of a node that has no summary: until when it is not asked again."""
        self._why: dict[str, str] = {}

    async def read(self, names: Sequence[str]) -> Usage:
        """What these nodes and their pods take now.

        Raises:
            ApiError: the API server is away, or does not answer.
        """
        now = self._clock.monotonic()
        nodes: dict[str, Amount] = {}
        pods: dict[tuple[str, str], Amount] = {}
        if now >= self._without_metrics:
            try:
                of_nodes, of_pods = await asyncio.gather(
                    self._client.get(f"{_METRICS}/nodes", labelSelector=NODE_LABEL), self._client.get(self._pods)
                )
                nodes |= {item["metadata"]["name"]: _amount(item["usage"]) for item in of_nodes["items"]}
                pods |= {_key(item): _sum(item) for item in of_pods["items"]}
            except errors.Unreachable:
                raise
            except (errors.ApiError, *_ILL_FORMED) as error:
                self._without_metrics = now + _AGAIN_SECONDS
                self._why["the Metrics API"] = _word(error)
            else:
                self._why.pop("the Metrics API", None)
        missing = [name for name in names if name not in nodes]
        self._without = {name: until for name, until in self._without.items() if until > now}
        asked = [name for name in missing if name not in self._without] if now >= self._without_proxy else []
        if asked:
            nodes_asked, pods_asked = await self._ask(asked[:MOST_ASKED], now)
            nodes, pods = nodes_asked | nodes, pods_asked | pods
        elif now < self._without_metrics:
            await self._client.get("/version")  # somebody has to say whether the API server is there
        lost = [name for name in missing if name not in nodes]
        return Usage(nodes, pods, self._remark(lost, len(names)))

    async def _ask(self, names: Sequence[str], now: float) -> tuple[dict[str, Amount], dict[tuple[str, str], Amount]]:
        """What nodes say themselves; one that does not answer is left out."""
        slots = asyncio.Semaphore(_AT_ONCE)
        unreachable: list[errors.Unreachable] = []
        nodes: dict[str, Amount] = {}
        pods: dict[tuple[str, str], Amount] = {}

        async def ask(name: str) -> None:
            async with slots:
                if now < self._without_proxy or unreachable:
                    return
                try:
                    summary = await self._summary(name)
                    nodes[name] = _measured(summary["node"])
                    pods.update(_pods_of(summary))
                except errors.Unreachable as error:
                    unreachable.append(error)
                except errors.Forbidden as error:  # of all nodes
                    self._without_proxy = now + _AGAIN_SECONDS
                    self._why["nodes/proxy"] = _word(error)
                except errors.ObjectNotFound:
                    self._without[name] = now + _AGAIN_SECONDS
                except (errors.ApiError, TimeoutError, *_ILL_FORMED) as error:
                    self._why["a node"] = f"{name}: {_word(error)}"
                else:
                    self._why.pop("nodes/proxy", None)

        self._why.pop("a node", None)
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(ask(name))
        if unreachable:
            raise unreachable[0]
        return nodes, pods

    async def _summary(self, name: str) -> Raw:
        path = f"{paths.NODES}/{name}/proxy/stats/summary"
        found = b""
        async with (
            asyncio.timeout(_ANSWER_SECONDS),
            self._client.stream(path, {"only_cpu_and_memory": "true"}, silence=_ANSWER_SECONDS) as content,
        ):
            while piece := await content.read(_ANSWER_BYTES):
                found += piece
                if len(found) > _ANSWER_BYTES:
                    raise ValueError(f"expected a Summary of at most {_ANSWER_BYTES} bytes, found a longer one")
        summary = orjson.loads(found)
        if not isinstance(summary, dict):
            raise ValueError("expected a Summary, found something else")
        return summary

    def _remark(self, lost: Sequence[str], count: int) -> str:
        if not lost:
            return ""
        which = "" if len(lost) == count else f" of {', '.join(lost[:3])}{' and others' if len(lost) > 3 else ''}"
        whys = dict(self._why)
        if without := [name for name in lost if name in self._without]:
            whys.setdefault("a node", f"{without[0]}: it has no Summary")
        why = "; ".join(f"{way}: {said}" for way, said in whys.items())
        return f"no usage{which} ({why or 'not measured yet'}). {NEEDS}."


def _word(error: BaseException) -> str:
    match error:
        case errors.Forbidden():
            return "not allowed"
        case errors.ObjectNotFound():
            return "not there"
        case TimeoutError():
            return "no answer in time"
    return str(error)[:200] or type(error).__name__


def _key(item: Raw) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _amount(usage: Raw) -> Amount:
    return Amount(float(Quantity.parse(usage["cpu"]).value), int(Quantity.parse(usage["memory"]).value))


def _sum(item: Raw) -> Amount:
    return _total([_amount(container["usage"]) for container in item.get("containers") or ()])


def _total(parts: Sequence[Amount]) -> Amount:
    return Amount(sum(part.cpu for part in parts), sum(part.memory for part in parts))


def _measured(stats: Raw) -> Amount:
    cpu, memory = stats.get("cpu") or {}, stats.get("memory") or {}
    return Amount(float(cpu.get("usageNanoCores") or 0) * 1e-9, int(memory.get("workingSetBytes") or 0))


def _pods_of(summary: Raw) -> Iterator[tuple[tuple[str, str], Amount]]:
    for pod in summary.get("pods") or ():
        if parts := [_measured(container) for container in pod.get("containers") or ()]:
            key = str(pod["podRef"]["namespace"]), str(pod["podRef"]["name"])
            yield key, _total(parts)
