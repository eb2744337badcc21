"""Parses and evaluates expressions with celpy, with limits on length, depth and steps.

celpy has no limits of its own. Its evaluator visits one node of the syntax tree in each step; this module counts these
visits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import attrs
import lark
from celpy import celtypes
from celpy.celparser import CELParseError, CELParser
from celpy.evaluation import Activation, CELEvalError, Evaluator, base_functions

from wasmlet.controlplane.extensions.cel.functions import FUNCTIONS

LONGEST = 8192
"""The most characters of an expression."""
DEEPEST = 40
"""The greatest depth of an expression's syntax tree; nodes that only pass on a value do not count."""
_PASSED_ON = (
    "expr",
    "conditionalor",
    "conditionaland",
    "relation",
    "addition",
    "multiplication",
    "unary",
    "member",
)
NAMES = frozenset((*base_functions, *FUNCTIONS, "min"))
"""The names of all functions."""
_FUNCTIONS = {**FUNCTIONS}

logging.getLogger("celpy").setLevel(logging.WARNING)  # it would log whole objects


def uses(tree: lark.Tree[Any], name: str) -> bool:
    """Whether an expression names a variable."""
    return any(str(token) == name for node in tree.find_data("ident") for token in node.children)


class RuleError(Exception):
    """An expression cannot be parsed or evaluated; the text says why."""


class TooExpensive(Exception):
    """An expression needs more steps than its budget has left."""


@attrs.define
class Budget:
    """How many steps are left."""

    steps: int

    def spend(self, count: int = 1) -> None:
        self.steps -= count
        if self.steps < 0:
            raise TooExpensive


class _Counting(Evaluator):
    """An evaluator that counts its steps. Its `has` tests only the last field: what is before it must exist."""

    def __init__(self, ast: lark.Tree[Any], activation: Activation, budget: Budget) -> None:
        super().__init__(ast, activation)
        self._budget = budget

    def sub_evaluator(self, ast: lark.Tree[Any]) -> Evaluator:
        return _Counting(ast, self.activation, self._budget)

    def visit(self, tree: lark.Tree[Any]) -> Any:
        self._budget.spend()
        return super().visit(tree)

    def visit_children(self, tree: lark.Tree[Any]) -> list[Any]:
        self._budget.spend(len(tree.children))
        return super().visit_children(tree)

    def macro_has_eval(self, exprlist: lark.Tree[Any]) -> Any:
        member: Any = exprlist.children[0]
        owner, name = member.children
        found = self.visit(owner)
        if isinstance(found, CELEvalError):
            return found
        return celtypes.BoolType(isinstance(found, Mapping) and name.value in found)


def parse(text: str) -> lark.Tree[Any]:
    """The syntax tree of an expression.

    Raises:
        RuleError: the text is no expression, or is too long or nested too deeply.
    """
    if len(text) > LONGEST:
        raise RuleError(f"an expression has at most {LONGEST} characters, found {len(text)}")
    try:
        tree: lark.Tree[Any] = _slim(CELParser().parse(text), 0)
    except CELParseError as error:
        where = f" at line {error.line}, column {error.column}" if error.line else ""
        raise RuleError(f"Syntax error{where}") from None
    except RecursionError:
        raise RuleError("the expression is nested too deeply") from None
    return tree


def _slim(tree: Any, depth: int) -> Any:
    """The tree without nodes that only pass on the value below them."""
    while isinstance(tree, lark.Tree) and tree.data in _PASSED_ON and len(tree.children) == 1:
        tree = tree.children[0]
    if not isinstance(tree, lark.Tree):
        return tree
    if depth > DEEPEST:
        raise RuleError("the expression is nested too deeply")
    tree.children = [_slim(child, depth + 1) for child in tree.children]
    return tree


def run(tree: lark.Tree[Any], variables: Mapping[str, Any], budget: Budget) -> Any:
    """Evaluate an expression; the result is a celpy type, which is a subclass of Python's bool, str and so on.

    Raises:
        RuleError: it has no value, as where a key is missing.
        TooExpensive: the steps of the budget are spent.
    """
    evaluator = _Counting(tree, Activation(vars=dict(variables), functions=_FUNCTIONS), budget)
    try:
        return evaluator.evaluate()
    except CELEvalError as error:
        raise RuleError(_reason(error)) from None
    except (ArithmeticError, LookupError, ValueError, TypeError) as error:
        raise RuleError(type(error).__name__) from None
    except RecursionError:
        raise TooExpensive from None


def _reason(error: CELEvalError) -> str:
    """What went wrong, without the values that celpy adds."""
    text = str(error.args[0]) if error.args else "error"
    if text.startswith("no such member in mapping: "):
        return f"no such key: {text.partition(': ')[2].strip(chr(39))}"
    if "matching overload" in text:
        return "no such overload"
    return text.partition(" (in activation")[0][:100]
