"""What a start comes to: arguments, variables, streams, limits, or why it is refused. Nothing runs here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.runtime.harness import pod_of
from wasmlet.errors import Refused
from wasmlet.model.inputs import Inputs
from wasmlet.runtime.files.pod_users import User
from wasmlet.runtime.images.images import Module
from wasmlet.runtime.linking import Uses
from wasmlet.runtime.network.network import PodNetwork
from wasmlet.runtime.network.node_network import NodeNetwork
from wasmlet.runtime.pods.plan import Limits, Networking, StartPlan, StartRequest, plan

MODULE = Module("file:///m/hello.wasm", "d" * 64, Path("/m/hello.wasm"))


def request_of(*args: str, **container: Any) -> StartRequest:
    pod = pod_of(*args, image=MODULE.image, **container)
    main = pod.containers[0]
    return StartRequest(
        manifest=pod,
        container=main,
        inputs=Inputs(),
        kind="main",
        attempt=3,
        backoff=20.0,
        resources=main.resources,
        handler="wasmlet",
        dense=False,
        user=None,
    )


def planned(*args: str, module: Module = MODULE, **container: Any) -> StartPlan:
    return plan(request_of(*args, **container), module, {})


def test_arguments_begin_with_the_name_of_the_module_or_with_the_command() -> None:
    assert planned("a", "b").argv == ("hello.wasm", "a", "b")
    assert planned("a", command=["program"]).argv == ("program", "a")
    image = attrs.evolve(MODULE, command=("entry",), arguments=("from-image",))
    assert planned(module=image).argv == ("entry", "from-image")
    assert planned("a", module=image).argv == ("entry", "a")


def test_variables_of_the_manifest_go_before_those_of_the_image() -> None:
    image = attrs.evolve(MODULE, environment=("A=image", "B=image"), folder="/app")
    found = planned(module=image, env=[{"name": "B", "value": "pod"}])
    assert {name: found.variables[name] for name in ("A", "B", "PWD")} == {"A": "image", "B": "pod", "PWD": "/app"}
    assert [reason for reason, _ in found.image_remarks] == ["WorkingDirNotApplied"]


@pytest.mark.parametrize(
    ("spec", "name"),
    [({}, "web"), ({"hostname": "mine"}, "mine"), ({"hostname": "mine", "subdomain": "sub"}, "mine")],
)
def test_the_host_name_is_a_variable_as_a_container_runtime_sets_it(spec: dict[str, str], name: str) -> None:
    found = planned("$(HOSTNAME)", spec=spec, env=[{"name": "B", "value": "$(HOSTNAME)"}])
    assert found.variables["HOSTNAME"] == name
    # What a kubelet expands does not know it.
    assert found.argv[1:] == ("$(HOSTNAME)",)
    assert found.variables["B"] == "$(HOSTNAME)"


def served(module: Module, least_port: int = 1, namespace: str = "", **container: Any) -> StartPlan:
    """The plan of a component that serves HTTP and declares no port."""
    node = NodeNetwork(on=True, least_port=least_port)
    network = Networking(
        PodNetwork(("127.1.0.2",), namespace), node, sockets=True, uses=Uses(sockets=True, serves=True)
    )
    return plan(attrs.evolve(request_of(**container), network=network), module, {})


def test_a_server_has_the_port_that_its_guest_is_told() -> None:
    module = attrs.evolve(MODULE, environment=("PORT=3000",))
    for found in (served(MODULE), served(module), served(module, env=[{"name": "PORT", "value": "9001"}])):
        assert found.labels.ports == (int(found.variables["PORT"]),)
    assert served(module).labels.ports == (3000,)


def test_a_port_that_is_kept_to_root_is_refused_where_nobody_declares_it() -> None:
    env = [{"name": "PORT", "value": "80"}]
    with pytest.raises(Refused, match=r"PORT: 80 cannot be listened at.*use one from 1024 on") as refused:
        served(MODULE, least_port=1024, env=env)
    assert refused.value.field == "spec.containers[0].env"
    assert served(MODULE, env=env).labels.ports == (80,)
    assert served(MODULE, least_port=1024, namespace="/run/netns/x", env=env).labels.ports == (80,)


def test_variables_of_the_image_are_not_expanded() -> None:
    """A kubelet knows those of the manifest and of the services alone, for arguments and for subPathExpr."""
    image = attrs.evolve(MODULE, environment=("A=image", "B=image"), folder="/app")
    words = ("$(A)", "$(B)", "$(PWD)", "$(C)")
    found = planned(*words, module=image, env=[{"name": "B", "value": "pod"}, {"name": "C", "value": "$(A)$(B)"}])
    assert found.argv[1:] == ("$(A)", "pod", "$(PWD)", "$(A)pod")
    assert dict(found.mounts.variables) == {"B": "pod", "C": "$(A)pod"}
    assert found.variables["A"] == "image"


def test_a_long_pod_name_is_cut_in_the_host_name() -> None:
    assert planned(name="a" * 62 + "-b").variables["HOSTNAME"] == "a" * 62


def test_image_and_manifest_go_before_the_host_name() -> None:
    image = attrs.evolve(MODULE, environment=("HOSTNAME=image",))
    assert planned(module=image).variables["HOSTNAME"] == "image"
    own = [{"name": "HOSTNAME", "value": "own"}]
    assert planned(module=image, env=own).variables["HOSTNAME"] == "own"
    assert planned("$(HOSTNAME)", env=own).argv[1:] == ("own",)


def test_limits_are_those_of_the_resources() -> None:
    resources = {"limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"cpu": "100m"}}
    found = planned(resources=resources).limits
    assert found == Limits.of(resources)
    assert (found.memory, found.message) == (64 * 2**20, {"memory": 64 * 2**20, "cpu": 500, "cpu_request": 100})


def test_labels_are_what_a_node_loop_that_comes_back_has_to_know() -> None:
    found = plan(attrs.evolve(request_of(), user=User(1234, ())), MODULE, {}).labels
    assert (found.container, found.kind, found.attempt, found.backoff) == ("main", "main", 3, 20.0)
    assert (found.image, found.image_id) == (MODULE.image, f"sha256:{MODULE.digest}")
    assert (found.handler, found.user) == ("wasmlet", 1234)


@pytest.mark.parametrize("field", ["stdin", "tty"])
def test_a_dense_container_has_no_input(field: str) -> None:
    request = request_of(**{field: True})
    assert plan(request, MODULE, {}).streams[field]
    with pytest.raises(Refused, match=rf"^spec.containers\[0\].{field}: handler 'many' cannot end a guest"):
        plan(attrs.evolve(request, handler="many", dense=True), MODULE, {})


@pytest.mark.parametrize(
    ("container", "field"),
    [
        ({"args": ["a\0b"]}, "args"),
        ({"livenessProbe": {"httpGet": {"port": 80}}}, "livenessProbe.httpGet"),
        ({"volumeDevices": [{"name": "disk"}]}, "volumeDevices"),
    ],
)
def test_what_cannot_be_given_is_refused_by_its_field(container: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused) as refused:
        planned(**container)
    assert refused.value.field == f"spec.containers[0].{field}"


def test_neither_variables_nor_mounts_are_shown() -> None:
    found = planned(env=[{"name": "PASSWORD", "value": "hidden-value"}])
    assert found.variables["PASSWORD"] == "hidden-value"
    assert "hidden-value" not in repr(found)
