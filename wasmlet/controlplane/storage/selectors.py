"""Label and field selectors, from the query strings of list and watch requests to predicates on objects.

The grammar of labels is that of `labels.Parse`: `a=b`, `a==b`, `a!=b`, `a in (x,y)`, `a notin (x,y)`, `a`, `!a`, `a>1`,
`a<1`, joined by commas. Fields know `=`, `==` and `!=`, and each kind has its own list (`kinds.Kind.fields`).
`store` asks the predicates.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import attrs

from wasmlet.controlplane.storage.kinds import Kind
from wasmlet.controlplane.storage.status import Object, bad_request
from wasmlet.model.placement import Requirement

NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_TOKEN = re.compile(r"\s*(?:(==|!=|=|!|<|>|\(|\)|,)|([^\s=!<>(),]+))")


def valid_label_key(key: str) -> bool:
    """Whether a text may be the key of a label or an annotation: [prefix/]name."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _PREFIX.fullmatch(prefix)):
        return False
    return NAME.fullmatch(name) is not None


def valid_label_value(value: object) -> bool:
    return isinstance(value, str) and (value == "" or NAME.fullmatch(value) is not None)


def _unparsable(text: str, why: str) -> Exception:
    return bad_request(f"unable to parse requirement: {why} in the label selector {text!r}")


def _tokens(text: str) -> list[tuple[str, str]]:
    """(operator, "") or ("", word) for each token of a selector."""
    out, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise _unparsable(text, f"unexpected text at {at}")
        out.append((match[1] or "", match[2] or ""))
        at = match.end()
    return out


@functools.lru_cache(maxsize=512)
def parse_labels(text: str) -> tuple[Requirement, ...]:
    """The requirements of a label selector; all of them must hold.

    Raises:
        ApiError: 400, the text is not a selector.
    """
    tokens = _tokens(text)
    out: list[Requirement] = []
    at = 0

    def word(what: str) -> str:
        nonlocal at
        if at >= len(tokens) or not tokens[at][1]:
            raise _unparsable(text, f"expected {what}")
        at += 1
        return tokens[at - 1][1]

    def take(operator: str) -> bool:
        nonlocal at
        if at < len(tokens) and tokens[at][0] == operator:
            at += 1
            return True
        return False

    def key() -> str:
        name = word("a label key")
        if not valid_label_key(name):
            raise _unparsable(text, f"{name!r} is not a label key")
        return name

    def value() -> str:
        if at < len(tokens) and tokens[at][1]:
            found = word("a value")
            if not valid_label_value(found):
                raise _unparsable(text, f"{found!r} is not a label value")
            return found
        return ""

    def values() -> frozenset[str]:
        if not take("("):
            raise _unparsable(text, "expected '('")
        found = {value()}
        while take(","):
            found.add(value())
        if not take(")"):
            raise _unparsable(text, "expected ')'")
        return frozenset(found)

    while at < len(tokens):
        if take("!"):
            out.append(Requirement(key(), "DoesNotExist"))
        else:
            name = key()
            if take("=") or take("=="):
                out.append(Requirement(name, "In", frozenset([value()])))
            elif take("!="):
                out.append(Requirement(name, "NotIn", frozenset([value()])))
            elif take(">") or take("<"):
                operator = "Gt" if tokens[at - 1][0] == ">" else "Lt"
                limit = word("a number")
                if not re.fullmatch(r"-?[0-9]+", limit):
                    raise _unparsable(text, f"{limit!r} is not a number")
                out.append(Requirement(name, operator, frozenset([limit])))
            elif at < len(tokens) and tokens[at][1] in ("in", "notin"):
                operator = "In" if word("in") == "in" else "NotIn"
                out.append(Requirement(name, operator, values()))
            else:
                out.append(Requirement(name, "Exists"))
        if at < len(tokens) and not take(","):
            raise _unparsable(text, "expected ','")
        if tokens[at - 1][0] == "," and at == len(tokens):
            raise _unparsable(text, "expected a label key after ','")
    return tuple(out)


def field_value(obj: Object, path: tuple[str, ...]) -> str:
    """The value of a field as field selectors see it: text, empty where there is none."""
    value: Any = obj
    for step in path:
        if not isinstance(value, dict):
            return ""
        value = value.get(step)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _reader(kind: Kind, field: str) -> Callable[[Object], str]:
    core = field.replace("regarding.", "involvedObject.") if kind.shares else field
    if kind.plural == "events" and core == "source":
        return lambda obj: field_value(obj, ("source", "component")) or field_value(obj, ("reportingComponent",))
    if core in ("spec.unschedulable", "spec.hostNetwork"):
        flag = tuple(core.split("."))
        return lambda obj: field_value(obj, flag) or "false"
    path = tuple(core.split("."))
    return lambda obj: field_value(obj, path)


@attrs.frozen
class FieldRequirement:
    """One condition on a field."""

    field: str
    value: str
    equal: bool
    read: Callable[[Object], str]

    def matches(self, obj: Object) -> bool:
        return (self.read(obj) == self.value) is self.equal


@functools.lru_cache(maxsize=2048)
def parse_fields(kind: Kind, text: str) -> tuple[FieldRequirement, ...]:
    """The requirements of a field selector.

    Raises:
        ApiError: 400, the text is no selector or the kind does not know the field.
    """
    out = []
    for term in filter(None, re.split(r"(?<!\\),", text)):
        match = re.fullmatch(r"([^=!]+)(==|!=|=)(.*)", term)
        if match is None:
            raise bad_request(f"invalid field selector {term!r}: expected field=value or field!=value")
        field, operator, value = match.groups()
        if field not in ("metadata.name", "metadata.namespace", *kind.fields):
            raise bad_request(f"field label not supported: {field}")
        plain = re.sub(r"\\([,=\\])", r"\1", value)
        out.append(FieldRequirement(field, plain, operator != "!=", _reader(kind, field)))
    return tuple(out)


@attrs.frozen
class Selector:
    """Which objects a list or watch is about."""

    namespace: str = ""
    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldRequirement, ...] = ()

    @property
    def everything(self) -> bool:
        return not (self.labels or self.fields)

    def exact(self, field: str) -> str | None:
        """The value that a field must have, where the selector says so."""
        for requirement in self.fields:
            if requirement.field == field and requirement.equal:
                return requirement.value
        return None

    def matches(self, obj: Object) -> bool:
        """Whether labels and fields fit; the namespace is the caller's to compare."""
        if self.labels:
            labels = obj["metadata"].get("labels") or {}
            if not all(requirement.matches(labels) for requirement in self.labels):
                return False
        return all(requirement.matches(obj) for requirement in self.fields)


def selector(kind: Kind, namespace: str, labels: str, fields: str) -> Selector:
    """A selector from the parameters of a request."""
    return Selector(namespace, parse_labels(labels), parse_fields(kind, fields))
