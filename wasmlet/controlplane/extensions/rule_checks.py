"""Checks the rules of a schema: each must parse, use only fields of the schema, and give true or false.

The messages are those of `ValidateCustomResourceDefinitionOpenAPISchema`, except where they quote the CEL compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wasmlet.controlplane.extensions import rules
from wasmlet.controlplane.extensions.pruning import additional
from wasmlet.controlplane.extensions.rules import KEY
from wasmlet.controlplane.storage.status import Cause, Object

MOST = 200
"""The most rules of one schema."""
MISSING = "rules need the package cel-python: pip install 'wasmlet[cel]'"
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")


def check(schema: Object, at: str) -> list[Cause]:
    """What is wrong with the rules of a structural schema; `at` is its path in the definition."""
    count = _count(schema)
    if not count:
        return []
    if not rules.available():
        return [Cause.forbidden(f"{at}.{KEY}", MISSING)]
    if count > MOST:
        return [Cause(f"{at}.{KEY}", f"Too many: {count}: must have at most {MOST} items", "FieldValueTooMany")]
    return list(_check(schema, at, "", root=True))


def _count(schema: Any) -> int:
    if isinstance(schema, dict):
        own = schema.get(KEY)
        return (len(own) if isinstance(own, list) else 0) + sum(_count(item) for item in schema.values())
    return sum(_count(item) for item in schema) if isinstance(schema, list) else 0


def _check(schema: Object, at: str, uncorrelated: str, *, root: bool = False) -> Iterator[Cause]:
    """`uncorrelated`: path of the list or map above whose elements have no key to find an old value by; "" for none."""
    for place, rule in enumerate(schema.get(KEY) or ()):
        yield from _check_rule(rule, schema, f"{at}.{KEY}[{place}]", uncorrelated, root=root)
    atomic = uncorrelated or (at if schema.get("x-kubernetes-map-type") == "atomic" else "")
    for name, below in (schema.get("properties") or {}).items():
        yield from _check(below, f"{at}.properties[{name}]", atomic)
    if (rest := additional(schema)) is not None:
        yield from _check(rest, f"{at}.additionalProperties", atomic)
    if isinstance(items := schema.get("items"), dict):
        known = schema.get("x-kubernetes-list-type") == "map"
        yield from _check(items, f"{at}.items", uncorrelated or ("" if known else at))


def _check_rule(rule: Any, schema: Object, at: str, uncorrelated: str, *, root: bool) -> Iterator[Cause]:
    if not isinstance(rule, dict):
        yield Cause.invalid(at, rule, "must be an object with rule and message")
        return
    for name in ("rule", "message", "messageExpression", "reason", "fieldPath"):
        if not isinstance(rule.get(name, ""), str):
            yield Cause.invalid(f"{at}.{name}", rule[name], "must be text")
            return
    text, message = rule.get("rule", "").strip(), rule.get("message", "")
    if not text:
        yield Cause.required(f"{at}.rule", "rule is not specified")
        return
    if message and not message.strip():
        yield Cause.invalid(f"{at}.message", message, "must be non-empty if specified")
    elif "\n" in message.strip():
        yield Cause.invalid(f"{at}.message", message, "must not contain line breaks")
    elif "\n" in text and not message:
        yield Cause.required(f"{at}.message", "message must be specified if rule contains line breaks")
    if rule.get("reason", "FieldValueInvalid") not in _REASONS:
        yield Cause.unsupported(f"{at}.reason", rule["reason"], _REASONS)
    if rule.get("fieldPath") and not _leads(schema, rule["fieldPath"]):
        yield Cause.invalid(f"{at}.fieldPath", rule["fieldPath"], "must be a valid path")
    if rule.get("optionalOldSelf"):
        yield Cause.forbidden(f"{at}.optionalOldSelf", "rules with optional values are not read here")
        return
    checks, engine = rules.module("checks"), rules.module("engine")
    seen = rules.with_metadata(schema) if root else schema
    try:
        if checks.check(rules.parsed(text), seen, "boolean") and uncorrelated:
            why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelated}"
            yield Cause.invalid(f"{at}.rule", text, why)
    except engine.RuleError as error:
        yield Cause.invalid(f"{at}.rule", rule, f"compilation failed: {error}")
    if expression := rule.get("messageExpression", "").strip():
        try:
            checks.check(rules.parsed(expression), seen, "string")
        except engine.RuleError as error:
            yield Cause.invalid(f"{at}.messageExpression", rule, f"messageExpression compilation failed: {error}")


def _leads(schema: Any, path: str) -> bool:
    """Whether a path of names leads to a field of a schema."""
    if not path.startswith("."):
        return False
    for name in path[1:].split("."):
        schema = (schema.get("properties") or {}).get(name) if isinstance(schema, dict) else None
    return schema is not None
