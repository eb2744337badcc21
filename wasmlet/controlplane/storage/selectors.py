"""Label and field selectors: parsed from the query of a list or watch request, and matched against objects.

The grammar of label selectors is that of `labels.Parse`: `a=b`, `a==b`, `a!=b`, `a in (x,y)`, `a notin (x,y)`, `a`,
`!a`, `a>1`, `a<1`, joined by commas. Field selectors have `=`, `==` and `!=`; which fields may be used is said for each
kind (`kinds.Kind.fields`). `store` applies the selectors.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
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
    return tuple(_LabelParser(text).requirements())


class _LabelParser:
    """Reads the tokens of one label selector, from the first to the last."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._at = 0

    def requirements(self) -> Iterator[Requirement]:
        """Each requirement of the selector."""
        while self._at < len(self._tokens):
            yield self._requirement()
            if self._at == len(self._tokens):
                return
            if not self._take(","):
                raise self._error("expected ','")
            if self._at == len(self._tokens):
                raise self._error("expected a label key after ','")

    def _requirement(self) -> Requirement:
        if self._take("!"):
            return Requirement(self._key(), "DoesNotExist")
        name = self._key()
        if self._take("=") or self._take("=="):
            return Requirement(name, "In", frozenset([self._value()]))
        if self._take("!="):
            return Requirement(name, "NotIn", frozenset([self._value()]))
        if self._take(">"):
            return Requirement(name, "Gt", frozenset([self._number()]))
        if self._take("<"):
            return Requirement(name, "Lt", frozenset([self._number()]))
        if self._next_word() in ("in", "notin"):
            return Requirement(name, "In" if self._word("in") == "in" else "NotIn", self._values())
        return Requirement(name, "Exists")

    def _next_word(self) -> str:
        """The next word; "" where an operator comes next, or nothing."""
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _word(self, what: str) -> str:
        found = self._next_word()
        if not found:
            raise self._error(f"expected {what}")
        self._at += 1
        return found

    def _take(self, operator: str) -> bool:
        """Skip this operator if it comes next. Returns whether it did."""
        taken = self._at < len(self._tokens) and self._tokens[self._at][0] == operator
        self._at += taken
        return taken

    def _key(self) -> str:
        name = self._word("a label key")
        if not valid_label_key(name):
            raise self._error(f"{name!r} is not a label key")
        return name

    def _value(self) -> str:
        if not self._next_word():
            return ""
        found = self._word("a value")
        if not valid_label_value(found):
            raise self._error(f"{found!r} is not a label value")
        return found

    def _number(self) -> str:
        found = self._word("a number")
        if not re.fullmatch(r"-?[0-9]+", found):
            raise self._error(f"{found!r} is not a number")
        return found

    def _values(self) -> frozenset[str]:
        if not self._take("("):
            raise self._error("expected '('")
        found = {self._value()}
        while self._take(","):
            found.add(self._value())
        if not self._take(")"):
            raise self._error("expected ')'")
        return frozenset(found)

    def _error(self, why: str) -> Exception:
        return _unparsable(self._text, why)


def text_of(selector: object) -> str:
    """A LabelSelector in the text form of a list request; "" where it is not valid."""
    try:
        requirements = of_object(selector)
    except ValueError:
        return ""
    return ",".join(_text(item.key, item.operator, sorted(item.values)) for item in requirements)


def _text(key: str, operator: str, values: list[str]) -> str:
    match operator:
        case "Exists":
            return key
        case "DoesNotExist":
            return f"!{key}"
        case "In" if len(values) == 1:
            return f"{key}={values[0]}"
    return f"{key} {operator.lower()} ({','.join(values)})"


_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def of_object(selector: object) -> tuple[Requirement, ...]:
    """The requirements of a LabelSelector, `matchLabels` and `matchExpressions`; none where it selects everything.

    Raises:
        ValueError: it is no LabelSelector; the text says why.
    """
    if not isinstance(selector, dict):
        raise ValueError("must be an object with matchLabels or matchExpressions")
    labels, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    if not isinstance(labels, dict) or not isinstance(expressions, list):
        raise ValueError("matchLabels must be a map and matchExpressions a list")
    out = [_expression(key, "In", [value]) for key, value in labels.items()]
    for item in expressions:
        if not isinstance(item, dict):
            raise ValueError("every element of matchExpressions must be an object")
        out.append(_expression(item.get("key"), item.get("operator"), item.get("values") or []))
    return tuple(out)


def _expression(key: object, operator: object, values: object) -> Requirement:
    if not isinstance(key, str) or not valid_label_key(key):
        raise ValueError(f"{key!r} is not a label key")
    if operator not in _OPERATORS:
        raise ValueError(f"{operator!r} is not a valid label selector operator: expected {', '.join(_OPERATORS)}")
    if not isinstance(values, list) or not all(valid_label_value(value) for value in values):
        raise ValueError(f"expected a list of label values of {key}, found {values!r}")
    if bool(values) != (operator in ("In", "NotIn")):
        raise ValueError(f"the operator {operator} of {key} {'takes no' if values else 'needs'} values")
    return Requirement(key, str(operator), frozenset(values))


def field_value(obj: Object, path: tuple[str, ...]) -> str:
    """The value of a field as text, for a field selector; empty where there is none."""
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
    if kind.key == "events" and core == "source":
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
    """Selects the objects of a list or watch."""

    namespace: str = ""
    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldRequirement, ...] = ()

    @property
    def everything(self) -> bool:
        return not (self.labels or self.fields)

    def exact(self, field: str) -> str | None:
        """The value that the selector demands of a field, or None."""
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
