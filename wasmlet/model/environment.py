"""The variables that a container starts with, worked out from the manifest and a pod's inputs.

The order is the kubelet's: first service variables (`wasmlet.model.services`), then `envFrom` and then `env`, both in
the order of the manifest. A later variable replaces an earlier one of the same name, and may refer to earlier ones. The
code that starts the container expands its command and arguments with the result (`wasmlet.model.expansion`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from wasmlet.errors import Refused
from wasmlet.model import env_files
from wasmlet.model.downward import Asked, field_value, resource_value
from wasmlet.model.expansion import MOST_BYTES, TooLong, expand
from wasmlet.model.inputs import Inputs
from wasmlet.model.objects import Kind, Lookup
from wasmlet.model.pod import Container, Pod, Raw
from wasmlet.model.services import service_variables


@attrs.frozen
class Environment:
    """A container's variables.

    Attributes:
        variables: name to value: variables of services, then those of `envFrom`, then those of `env`. A byte of a
            secret that is not UTF-8 is a surrogate; `os.fsencode` gives the byte back.
        binary: names of the variables with such a byte, for a runtime that can only take text.
        skipped: messages about names that are not valid, each for an event InvalidEnvironmentVariableNames.
    """

    variables: dict[str, str]
    binary: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


Files = Mapping[tuple[str, str], str]
"""Texts by the volume and the path that a `fileKeyRef` names; one that is not there has no entry."""


def environment(
    pod: Pod, container: Container, inputs: Inputs, pod_ips: Sequence[str] = (), files: Files | None = None
) -> Environment:
    """Work out the container's variables.

    Args:
        pod_ips: the pod's own addresses; without one, `status.podIP` is the node's.
        files: what `fileKeyRef` refers to; None where nobody can read files, and they are refused.

    Raises:
        MissingReference: an object or key that is not optional is missing.
        Refused: a source that this node cannot give, or that the API does not document, is asked for; or the variables
            are too long together.
    """
    lookup = _Lookup(inputs, container.name, files=files, pod_ips=pod_ips)
    services = service_variables(pod, inputs)
    declared: dict[str, str] = {}
    skipped: list[str] = []
    declared.update(_from_sources(pod, container, lookup, skipped))
    size = sum(map(len, declared.values()))
    for index, variable in enumerate(container.env):
        field = f"{container.field}.env[{index}]"
        try:
            value = _value(pod, container, variable, lookup, (declared, services), field)
        except TooLong:
            size = MOST_BYTES + 1
        else:
            size += len(value or "")
        if size > MOST_BYTES:
            message = f"{variable['name']} takes the variables above the {MOST_BYTES} bytes that a container may have"
            raise Refused(field, message, container=container.name)
        if value is not None:
            # Taken out first, so that the order is that of the manifest for a name that was there before, too.
            declared.pop(variable["name"], None)
            declared[variable["name"]] = value
    variables = {name: value for name, value in services.items() if name not in declared} | declared
    for name, value in variables.items():
        if "\0" in value:
            raise Refused(
                f"{container.field}.env",
                f"the value of {name} has a NUL byte, which ends a variable",
                container=container.name,
            )
    binary = tuple(name for name, value in variables.items() if any("\udc80" <= char <= "\udcff" for char in value))
    return Environment(variables, binary, tuple(skipped))


@attrs.frozen
class _Lookup(Lookup):
    """Objects, files, and the pod's own addresses."""

    files: Files | None = None
    pod_ips: Sequence[str] = ()


def _from_sources(pod: Pod, container: Container, lookup: Lookup, skipped: list[str]) -> Iterator[tuple[str, str]]:
    """The variables of `envFrom`; what cannot be one is left out and said in `skipped`."""
    for index, source in enumerate(container.raw.get("envFrom") or ()):
        field = f"{container.field}.envFrom[{index}]"
        kind: Kind
        if (reference := source.get("configMapRef")) is not None:
            kind, field, called = "ConfigMap", f"{field}.configMapRef", "configMap"
        elif (reference := source.get("secretRef")) is not None:
            kind, field, called = "Secret", f"{field}.secretRef", "secret"
        else:
            raise _unknown(source, field, ("configMapRef", "secretRef"), container, ignore=("prefix",))
        invalid = []
        for key, value in (lookup.data(kind, reference, field, binary=False) or {}).items():
            name = f"{source.get('prefix') or ''}{key}"
            if _valid_name(name):
                yield name, _text(value)
            else:
                invalid.append(name)
        if invalid:
            skipped.append(
                f"Keys [{', '.join(sorted(invalid))}] from the EnvFrom {called} {pod.namespace}/{reference['name']} "
                "were skipped since they are considered invalid environment variable names."
            )


def _value(
    pod: Pod,
    container: Container,
    variable: Raw,
    lookup: _Lookup,
    known: tuple[Mapping[str, str], Mapping[str, str]],
    field: str,
) -> str | None:
    """The value of one entry of `env`; None where an optional reference leaves the variable unset."""
    if variable.get("value"):
        return expand(str(variable["value"]), *known)
    source = variable.get("valueFrom")
    if not source:
        return ""

    source_field = f"{field}.valueFrom"
    if (selector := source.get("fieldRef")) is not None:
        asked = Asked("env", f"{source_field}.fieldRef", container.name)
        return field_value(pod, selector, lookup.inputs, lookup.pod_ips, asked)
    if (selector := source.get("resourceFieldRef")) is not None:
        path = f"{source_field}.resourceFieldRef"
        return resource_value(pod, selector, lookup.inputs, field=path, container=container)
    if (selector := source.get("configMapKeyRef")) is not None:
        return _key(pod, "ConfigMap", selector, lookup, f"{source_field}.configMapKeyRef")
    if (selector := source.get("secretKeyRef")) is not None:
        return _key(pod, "Secret", selector, lookup, f"{source_field}.secretKeyRef")
    if (selector := source.get("fileKeyRef")) is not None and lookup.files is not None:
        return _file_key(pod, selector, lookup, lookup.files, f"{source_field}.fileKeyRef")
    known_sources = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"]
    known_sources += ["fileKeyRef"] if lookup.files is not None else []
    raise _unknown(source, source_field, known_sources, container)


def _key(pod: Pod, kind: Kind, selector: Raw, lookup: Lookup, field: str) -> str | None:
    data = lookup.data(kind, selector, field, binary=False)
    if data is None:
        return None
    key = selector.get("key", "")
    if key not in data:
        if selector.get("optional"):
            return None
        raise lookup.missing(field, f"couldn't find key {key} in {kind} {pod.namespace}/{selector.get('name')}")
    return _text(data[key])


def _file_key(pod: Pod, selector: Raw, lookup: _Lookup, files: Files, field: str) -> str | None:
    volume, path, key = (str(selector.get(name) or "") for name in ("volumeName", "path", "key"))
    sources = {v.get("name"): v for v in pod.spec.get("volumes") or ()}
    if (sources.get(volume) or {}).get("emptyDir") is None:
        raise Refused(
            f"{field}.volumeName",
            f"expected an emptyDir volume of the pod, found {volume!r}",
            container=lookup.container,
        )
    value, text = None, files.get((volume, path))
    if text is not None:
        try:
            value = env_files.find(text, key)
        except ValueError as error:
            raise lookup.missing(field, f"file {path!r} of volume {volume!r}, {error}") from None
    if value is None and not selector.get("optional"):
        what = f"environment variable key {key!r} not found in file" if text is not None else "there is no file"
        raise lookup.missing(field, f"{what} {path!r} of volume {volume!r}")
    return value


def _unknown(
    source: Raw, field: str, known: Sequence[str], container: Container, ignore: Sequence[str] = ()
) -> Refused:
    found = [name for name, value in source.items() if value is not None and name not in ignore]
    path = f"{field}.{found[0]}" if found else field
    what = f"{found[0]} is not supported by this node" if found else "no source is named"
    return Refused(path, f"{what}; expected one of {', '.join(known)}", container=container.name)


def _valid_name(name: str) -> bool:
    """Whether it can be a variable's name: printable ASCII without "=" (KEP-4369)."""
    return bool(name) and "=" not in name and name.isascii() and name.isprintable()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
