"""The rules of a schema (`x-kubernetes-validations`): prepared once, and evaluated for each object.

`cel.engine` is imported when the first definition with rules comes, since that takes a quarter of a second and 18 MiB;
`available` imports it ahead of its use. `rule_checks` refuses definitions whose rules are wrong.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from wasmlet.controlplane.extensions.pruning import additional
from wasmlet.controlplane.extensions.values import NEW, correlated, shown
from wasmlet.controlplane.storage.status import Cause, Object

if TYPE_CHECKING:
    from types import ModuleType

    import lark

    from wasmlet.controlplane.extensions.cel.engine import Budget

KEY = "x-kubernetes-validations"
STEPS = 10_000
"""How many steps all rules together may take for one object; a step takes some 20 to 60 microseconds."""
_LONGEST_MESSAGE = 5120
UNCHECKED = Cause(
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)
_EXPENSIVE = "validation failed due to running out of cost budget, no further validation rules will be run"


_TEXT: Object = {"type": "string"}
_ROOT: Object = {
    "apiVersion": _TEXT,
    "kind": _TEXT,
    "metadata": {"type": "object", "properties": {"name": _TEXT, "generateName": _TEXT}},
}


def with_metadata(schema: Object) -> Object:
    """The schema of a whole object as rules see it."""
    return {**schema, "properties": {**(schema.get("properties") or {}), **_ROOT}}


def module(name: str) -> ModuleType:
    """A module of `cel`, imported when it is needed.

    Raises:
        ImportError: cel-python is not installed.
    """
    return importlib.import_module(f"wasmlet.controlplane.extensions.cel.{name}")


@functools.lru_cache(maxsize=2048)
def parsed(text: str) -> lark.Tree[Any]:
    """The syntax tree of an expression.

    Raises:
        cel.engine.RuleError: the text is no expression.
    """
    tree: lark.Tree[Any] = module("engine").parse(text)
    return tree


def available() -> bool:
    """Whether rules can be read here. The first call imports cel-python, which takes a while."""
    try:
        parsed("true")
    except ImportError:
        return False
    return True


def used(value: Any) -> bool:
    """Whether there is a rule anywhere in a schema, or in a whole definition."""
    if isinstance(value, dict):
        return bool(value.get(KEY)) or any(used(item) for item in value.values())
    return isinstance(value, list) and any(used(item) for item in value)


@attrs.frozen
class _Rule:
    text: str
    tree: lark.Tree[Any]
    uses_old: bool
    message: str
    expression: lark.Tree[Any] | None
    field_path: str
    reason: str

    @classmethod
    def of(cls, rule: Object) -> _Rule:
        text, expression = rule["rule"].strip(), rule.get("messageExpression", "").strip()
        tree = parsed(text)
        return cls(
            text,
            tree,
            module("engine").uses(tree, "oldSelf"),
            rule.get("message", "").strip(),
            parsed(expression) if expression else None,
            rule.get("fieldPath", ""),
            rule.get("reason", "FieldValueInvalid"),
        )

    def detail(self, variables: Mapping[str, Any], budget: Budget) -> str:
        """The message for a broken rule: the value of its message expression if that is usable, else its message."""
        engine = module("engine")
        text = ""
        if self.expression is not None:
            try:
                text = str(engine.run(self.expression, variables, budget)).strip()
            except engine.RuleError:
                text = ""
        if not text or "\n" in text or len(text) > _LONGEST_MESSAGE:
            text = self.message or f"failed rule: {self.text}"
        return text


@attrs.frozen
class Rules:
    """The rules of a schema and, in the same form, of its parts; parts without rules are left out."""

    schema: Object
    own: tuple[_Rule, ...]
    properties: Mapping[str, Rules]
    rest: Rules | None
    items: Rules | None

    @classmethod
    def of(cls, schema: Any) -> Rules | None:
        """Prepare the rules of a schema that `rule_checks` has accepted; None where it has none."""
        if not isinstance(schema, dict) or not used(schema):
            return None
        below = {name: found for name, item in (schema.get("properties") or {}).items() if (found := cls.of(item))}
        own = tuple(_Rule.of(rule) for rule in schema.get(KEY) or ())
        return cls(schema, own, below, cls.of(additional(schema)), cls.of(schema.get("items")))

    def check(self, obj: Object, old: Object | None) -> list[Cause]:
        """The rules that an object breaks; `old` is the object that it replaces."""
        engine = module("engine")
        found: list[Cause] = []
        try:
            for cause in self._run(obj, "", NEW if old is None else old, engine.Budget(STEPS)):
                found.append(cause)
        except engine.TooExpensive:
            found.append(Cause("<nil>", f'Invalid value: "object": {_EXPENSIVE}'))
        return found

    def _run(self, value: Any, at: str, old: Any, budget: Budget) -> Iterator[Cause]:
        if value is None:
            return
        if self.own:
            yield from self._own(value, at, old, budget)
        if isinstance(value, list) and self.items is not None:
            before = correlated(self.schema, value, old)
            for place, item in enumerate(value):
                yield from self.items._run(item, f"{at}[{place}]", before[place], budget)
        elif isinstance(value, dict):
            known = isinstance(old, dict) and self.schema.get("x-kubernetes-map-type") != "atomic"
            for key, item in value.items():
                below = self.properties.get(key, self.rest)
                if below is not None:
                    path = f"{at}[{key}]" if below is self.rest else f"{at}.{key}" if at else key
                    yield from below._run(item, path, old.get(key, NEW) if known else NEW, budget)

    def _own(self, value: Any, at: str, old: Any, budget: Budget) -> Iterator[Cause]:
        """The rules of this schema itself, for one value."""
        engine, values = module("engine"), module("values")
        variables = {"self": values.convert(value, self.schema, budget)}
        if old is not NEW:
            variables["oldSelf"] = values.convert(old, self.schema, budget)
        for rule in self.own:
            if (rule.uses_old and old is NEW) or (not rule.uses_old and old is not NEW and value == old):
                continue  # a rule about a change needs an old value; any other is skipped where nothing changed
            try:
                if engine.run(rule.tree, variables, budget):
                    continue
            except engine.RuleError as error:
                why = f"{error} evaluating rule: {rule.message or rule.text}"
                yield Cause(at or "<nil>", f'Invalid value: "{self.schema.get("type", "")}": {why}')
                continue
            yield _cause(value, f"{at}{rule.field_path}".removeprefix("."), rule.detail(variables, budget), rule.reason)


def _cause(value: Any, at: str, detail: str, reason: str) -> Cause:
    at = at or "<nil>"
    match reason:
        case "FieldValueForbidden":
            return Cause.forbidden(at, detail)
        case "FieldValueRequired":
            return Cause.required(at, detail)
        case "FieldValueDuplicate":
            return Cause(at, f"Duplicate value: {shown(value)}", reason)
    found = "" if isinstance(value, dict | list) else f"{shown(value)}: "
    return Cause(at, f"Invalid value: {found}{detail}")
