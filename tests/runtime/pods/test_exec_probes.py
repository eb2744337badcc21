"""Probes and hooks that really run in a guest: a second instance of its module, with its files."""

from __future__ import annotations

from typing import Any

from tests.runtime.harness import Runtime, pod_of
from wasmlet.model.status import Running

DATA: dict[str, Any] = {"volumes": [{"name": "data", "emptyDir": {}}]}
MOUNTS = [{"name": "data", "mountPath": "/data"}]


def command(*words: str, **fields: Any) -> dict[str, Any]:
    return {"exec": {"command": list(words)}, **fields}


async def test_a_probe_finds_what_the_guest_has_written(runtime: Runtime, image: str) -> None:
    ready = command("driver", "await", "/data/up", "yes", periodSeconds=1, timeoutSeconds=30)
    key = await runtime.create(
        pod_of(
            "put", "/data/up", "yes", "sleep", "1000", image=image, spec=DATA, volumeMounts=MOUNTS, readinessProbe=ready
        )
    )
    status = await runtime.main(key, lambda s: s.is_ready)
    assert isinstance(status.state, Running)


async def test_liveness_restarts_a_guest(runtime: Runtime, image: str) -> None:
    live = command("driver", "print", "sick", "exit", "3", periodSeconds=1, failureThreshold=1, timeoutSeconds=30)
    key = await runtime.create(pod_of("sleep", "1000", image=image, restart="Always", livenessProbe=live))
    event = await runtime.event(key, "Unhealthy")
    assert event.message == "Liveness probe failed: sick\n"
    status = await runtime.main(key, lambda s: s.restart_count >= 1)
    assert status.last_state is not None
    assert status.last_state.exit_code == 143


async def test_a_probe_that_never_ends_is_ended(runtime: Runtime, image: str) -> None:
    live = command("driver", "spin", periodSeconds=1, failureThreshold=1, timeoutSeconds=1)
    key = await runtime.create(pod_of("sleep", "1000", image=image, restart="Always", livenessProbe=live))
    event = await runtime.event(key, "Unhealthy")
    assert event.message == 'Liveness probe failed: command timed out: "driver spin" timed out after 1s'
    await runtime.event(key, "Killing", "failed liveness probe, will be restarted")


async def test_hooks_run_in_the_guest(runtime: Runtime, image: str) -> None:
    """What postStart writes the guest finds; what preStop writes it finds before it is interrupted."""
    lifecycle = {
        "postStart": command("driver", "put", "/data/begun", "yes"),
        "preStop": command("driver", "put", "/data/stop", "now", "await", "/data/seen", "yes"),
    }
    work = ("await", "/data/begun", "yes", "print", "begun", "await", "/data/stop", "now", "put", "/data/seen", "yes")
    key = await runtime.create(
        pod_of(
            *work, "print", "seen", "sleep", "1000", image=image, spec=DATA, volumeMounts=MOUNTS, lifecycle=lifecycle
        )
    )
    await runtime.running(key)
    await runtime.logged(key, b"begun\n")
    final = await runtime.provider.delete_pod(key, 60)
    assert final is not None
    assert [e.reason for e in runtime.events if e.reason.startswith("Failed")] == []
