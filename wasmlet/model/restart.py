"""Whether a container that has ended is to run again: the kubelet's rules, as a pure function.

A container's own `restartPolicy` and `restartPolicyRules` (KEP-753 for sidecars, KEP-5307 for the rest) override the
pod's policy. An init container that has ended with exit code 0 does not run again, whatever a policy says, unless it is
a sidecar.
"""

from __future__ import annotations

from wasmlet.model.pod import Container, Pod, Raw


def is_init(container: Container) -> bool:
    return container.field.startswith("spec.initContainers")


def is_sidecar(container: Container) -> bool:
    """Whether it is a native sidecar: an init container with `restartPolicy: Always`."""
    return is_init(container) and container.raw.get("restartPolicy") == "Always"


def restarts(pod: Pod, container: Container, exit_code: int) -> bool:
    """Whether the container runs again after it has ended with this code. An ephemeral container never does."""
    if container.field.startswith("spec.ephemeralContainers"):
        return False
    policy = container.raw.get("restartPolicy")
    if is_init(container) and policy != "Always" and exit_code == 0:
        return False
    if policy:
        for rule in container.raw.get("restartPolicyRules") or ():
            if _matches(rule, exit_code):
                return bool(rule.get("action") == "Restart")
    policy = policy or pod.restart_policy
    return bool(policy == "Always" or (policy == "OnFailure" and exit_code != 0))


def _matches(rule: Raw, exit_code: int) -> bool:
    codes = rule.get("exitCodes") or {}
    listed = exit_code in (codes.get("values") or ())
    return listed if codes.get("operator") == "In" else codes.get("operator") == "NotIn" and not listed
