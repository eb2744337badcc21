"""The errors that wasmlet raises and understands.

Each class has one meaning, so that a provider author, the node loop and the command line agree on what to do about a
failure. `wasmlet.kube.errors` adds one class for each kind of error that the API server answers. All other modules
raise the classes below.

| error | raised by | what the node loop does |
|---|---|---|
| `NotFound` | provider | takes the pod as gone (a delete has succeeded, a lost pod is reported) |
| `Refused` | provider, node | leaves the pod Pending, names the field, tries again when the pod changes |
| `MissingReference` | provider, node | the same, and tries again when the object that is missing appears |
| `NotYet` | provider | shows its reason, then tries again with a growing pause, for ever |
| `Rejected` | node, provider | sets phase Failed with this reason, as a kubelet's admission does |
| `InvalidInput` | provider | answers 400 to an API caller |
| `Unsupported` | provider | answers 501 to an API caller, and 400 to one that asks for logs |
| anything else | provider | reports it, then tries again with a growing pause, for ever |
"""

from __future__ import annotations


class WasmletError(Exception):
    """The base of every error that wasmlet raises on purpose; `str()` of it is fit to show to a user."""


class ConfigError(WasmletError):
    """A flag, a file or the environment is wrong; the message says what was expected, what was found, what to do."""


class NotFound(WasmletError):
    """The pod or container that was asked for is not known here."""


class InvalidInput(WasmletError):
    """The request itself is wrong and would be wrong again (HTTP 400)."""


class Unsupported(WasmletError):
    """This provider cannot do this at all (HTTP 501; for logs 400, whose text alone kubectl shows as it is)."""

    @classmethod
    def by(cls, provider: str, call: str) -> Unsupported:
        """The error for an optional call that a provider does not have, in words for those who use kubectl.

        Args:
            provider: the provider's name.
            call: the name of a method, as `Provider.supports` takes it.
        """
        lacks = {"logs": "keeps no logs", "stats": "does not measure its pods"}.get(call)
        return cls(f"this node's provider, {provider}, {lacks or 'does not support ' + call.replace('_', '-')}")


class Refused(WasmletError):
    """The manifest asks for something that this node cannot give; the pod stays Pending and says so.

    Phase Failed would make a ReplicaSet create the next pod at once, so this is the answer to a field that cannot be
    honoured.

    Args:
        field: path of the field, as `spec.containers[0].ports`.
        message: what this node cannot give, and what to do instead.
        container: name of the container concerned; None means every container of the pod.
        reason: the container's `waiting.reason`.
    """

    def __init__(
        self, field: str, message: str, *, container: str | None = None, reason: str = "CreateContainerConfigError"
    ) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.container = container
        self.reason = reason


class MissingReference(Refused):
    """An object or a key that the manifest refers to, and does not call optional, is not there (yet).

    `str()` of it is the kubelet's own wording (`configmap "settings" not found`), without the field. The reason is
    CreateContainerConfigError where a container's variables are concerned, and ContainerCreating where a volume is,
    as with a kubelet.
    """

    def __init__(
        self, field: str, message: str, *, container: str | None = None, reason: str = "CreateContainerConfigError"
    ) -> None:
        super().__init__(field, message, container=container, reason=reason)
        self.args = (message,)


class NotYet(WasmletError):
    """The pod cannot be taken now. The reason is not in the pod and may pass: for example, its image cannot be pulled.

    Args:
        message: what is missing, and why.
        reason: the containers' `waiting.reason`.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Rejected(WasmletError):
    """The pod must not run on this node: phase Failed with `reason`, where the kubelet itself rejects at admission."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
