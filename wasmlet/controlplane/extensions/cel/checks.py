"""Checks an expression against a schema: that fields are declared, names are known, and functions exist.

Types are followed no further: a function's result may be of any type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lark

from wasmlet.controlplane.extensions.cel.engine import NAMES, RuleError, uses
from wasmlet.controlplane.extensions.cel.values import unescaped
from wasmlet.controlplane.extensions.pruning import PRESERVE, additional
from wasmlet.controlplane.storage.status import Object

_MACROS = ("all", "exists", "exists_one", "map", "filter")
_TYPES = (
    "bool",
    "bytes",
    "double",
    "duration",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "type",
    "uint",
)
_FUNCTIONS = NAMES | {*_TYPES, "dyn", "has"}
_TEXT: Object = {"type": "string"}
Scope = Mapping[str, Object | None]
"""The variables that are declared, with their schemas; None stands for any type."""


def check(tree: lark.Tree[Any], schema: Object, result: str) -> bool:
    """Check an expression about `self` and `oldSelf`; returns whether it uses `oldSelf`.

    Args:
        result: the type that it is to have, "boolean" or "string".

    Raises:
        RuleError: something is not declared, or the type is another one.
    """
    found = _type(tree, {"self": schema, "oldSelf": schema})
    kind = (found or {}).get("type")
    if kind is not None and kind != result:
        raise RuleError(f"must evaluate to a {'bool' if result == 'boolean' else result}")
    return uses(tree, "oldSelf")


def _type(node: Any, scope: Scope) -> Object | None:
    """The schema of an expression's value; None where it may be of any type."""
    if not isinstance(node, lark.Tree):
        return None
    match node.data:
        case "primary" | "paren_expr":
            return _type(node.children[0], scope)
        case "ident" | "dot_ident":
            name = str(node.children[0])
            if name in scope:
                return scope[name]
            if name in _TYPES or name == "null":
                return None
            raise RuleError(f"undeclared reference to '{name}'")
        case "ident_arg" | "dot_ident_arg":
            return _call(node, scope)
        case "member_dot":
            return _field(_type(node.children[0], scope), str(node.children[1]))
        case "member_index":
            base = _type(node.children[0], scope)
            _type(node.children[1], scope)
            return None if base is None else base.get("items") or additional(base)
        case "member_dot_arg":
            return _method(node, scope)
        case "literal":
            token: Any = node.children[0]
            return _literal(token.type)
    below = [_type(child, scope) for child in node.children]
    if node.data in ("conditionalor", "conditionaland", "relation"):
        return {"type": "boolean"}
    return below[-1] if node.data in ("unary", "exprlist") and len(below) == 1 else None


def _literal(token: str) -> Object | None:
    kinds = {"INT_LIT": "integer", "FLOAT_LIT": "number", "BOOL_LIT": "boolean", "STRING_LIT": "string"}
    return {"type": kinds[token]} if token in kinds else None


def _field(base: Object | None, name: str) -> Object | None:
    if base is None:
        return None
    if base.get(PRESERVE) or not base.get("type"):
        found: Object | None = (base.get("properties") or {}).get(unescaped(name))
        return found
    if base["type"] != "object":
        raise RuleError(f"type '{base['type']}' does not support field selection")
    properties, rest = base.get("properties") or {}, additional(base)
    if unescaped(name) in properties:
        return _opaque(properties[unescaped(name)])
    if rest is None:
        raise RuleError(f"undefined field '{name}'")
    return _opaque(rest)


def _opaque(schema: Object) -> Object | None:
    """A schema; None where its values may have more than one type."""
    return None if schema.get("x-kubernetes-int-or-string") else schema


def _arguments(node: lark.Tree[Any]) -> list[Any]:
    last = node.children[-1]
    return list(last.children) if isinstance(last, lark.Tree) and last.data == "exprlist" else []


def _call(node: lark.Tree[Any], scope: Scope) -> Object | None:
    name, arguments = str(node.children[0]), _arguments(node)
    if name not in _FUNCTIONS:
        raise RuleError(f"undeclared reference to '{name}'")
    if name == "has":
        if len(arguments) != 1 or getattr(arguments[0], "data", "") != "member_dot":
            raise RuleError("invalid argument to has() macro")
        _type(arguments[0], scope)
        return {"type": "boolean"}
    for argument in arguments:
        _type(argument, scope)
    return {"type": "integer"} if name == "size" else None


def _method(node: lark.Tree[Any], scope: Scope) -> Object | None:
    base, name, arguments = _type(node.children[0], scope), str(node.children[1]), _arguments(node)
    if name in _MACROS:
        if len(arguments) != 2 or next(arguments[0].find_data("ident"), None) is None:
            raise RuleError(f"{name} takes a variable and an expression")
        variable = str(next(arguments[0].find_data("ident")).children[0])
        element = None
        if base is not None and base.get("type") == "array":
            element = _opaque(base.get("items") or {})
        elif base is not None and base.get("type") == "object":
            element = _TEXT
        _type(arguments[1], {**scope, variable: element})
        return base if name == "filter" else None if name == "map" else {"type": "boolean"}
    if name not in _FUNCTIONS:
        raise RuleError(f"undeclared reference to '{name}'")
    for argument in arguments:
        _type(argument, scope)
    return None
