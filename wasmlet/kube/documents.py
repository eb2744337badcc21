"""Documents that client-go reads as well: a kubeconfig, and what a credential plugin answers.

They are read as client-go reads them, so that a file means the same here and there. JSON may be indented with tabs. In
YAML a scalar has the type that Go's library gives it, of several documents the first counts, and a field must have its
own type: `"false"` is a text and no boolean. Unknown fields are ignored, and null counts as absent.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import attrs
import yaml

from wasmlet.errors import ConfigError

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # of libyaml, which knows where a tab may stand


class _Loader(_Base):  # type: ignore[misc]
    """The scalars of Go's library: a date is a text, `1:30` is no number, `1e3` is one."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        text = str(node.value).replace("_", "")
        for read in (lambda: int(text, 0), lambda: int(text, 8), lambda: float(text)):
            try:
                return read()
            except ValueError:
                continue
        return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".", ""))


class _Dumper(yaml.SafeDumper):
    """Puts a text in quotes that `_Loader` would take for something else."""


_MAX_DEPTH = 200
_NUMBER = r"""[-+]?(?:0[xX][0-9a-fA-F_]+|0[oO]?[0-7_]+|0[bB][01_]+|[0-9][0-9_]*
    |(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"""
for _tag, _pattern, _first in (
    ("bool", r"y|Y|yes|Yes|YES|on|On|ON|true|True|TRUE|n|N|no|No|NO|off|Off|OFF|false|False|FALSE", "yYnNtTfFoO"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", "<<", "<"),
    ("float", _NUMBER, "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$", re.X), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)
_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
_Loader.bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}


def read(content: bytes) -> Any:
    """The first document in JSON or YAML, as JSON would have it; None where there is none.

    Raises:
        ValueError: it is neither; the text is one line and shows nothing of the content.
    """
    return next(read_all(content), None)


def read_all(content: bytes) -> Iterator[Any]:
    """Each document, read when it is asked for.

    Raises:
        ValueError: one is neither JSON nor YAML; see `read`.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        pass
    else:
        yield document
        return
    try:
        loader, ahead = _Loader(content), _Base(content)
        try:
            while loader.check_data():
                _check_depth(ahead)
                yield _jsonable(loader.get_data())
        finally:
            loader.dispose()
            ahead.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}" if mark is not None else ""
        # The other kinds of error quote the file, and so perhaps a secret.
        quotes_nothing = isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError)
        problem = error.problem if quotes_nothing else "there is something that cannot be read"
        raise ValueError(f"expected YAML or JSON: {problem}{where}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"expected YAML or JSON, found something else ({type(error).__name__})") from None


def write(value: Any) -> bytes:
    """One document in YAML, of a value as JSON has it: `read` gives the same again."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, encoding="ascii", width=1 << 20)


def _check_depth(ahead: Any) -> None:
    """Check that the next document is not nested too deeply: libyaml works by recursion, and would crash the process.

    Args:
        ahead: a second parser of the same content, which reads the document before the loader does.

    Raises:
        RecursionError: it is nested too deeply.
    """
    depth = 0
    while not isinstance(event := ahead.get_event(), yaml.DocumentEndEvent | type(None)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise RecursionError


def _jsonable(value: Any) -> Any:
    """The value with all keys of its objects as text, as when YAML is turned into JSON."""
    if isinstance(value, dict):
        return {_key(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    return value


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return "null" if key is None else str(key)


def _filled(value: Any) -> Any:
    return {} if value is None else value


@attrs.frozen
class Fields:
    """The fields of one object, each read with the type that it must have.

    Args:
        where: path of the object, as `users[0].user`; it begins every complaint.
        value: the object; None is one without fields.

    Raises:
        ConfigError: the value is not an object. The methods raise it, too, if a field has another type than expected.
    """

    where: str
    value: Mapping[str, Any] = attrs.field(converter=_filled)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.value, dict):
            raise self._wrong("", "an object", self.value)

    def text(self, name: str) -> str:
        found = self.value.get(name)
        if found is None:
            return ""
        if not isinstance(found, str):
            raise self._wrong(name, "a text", found)
        return found

    def flag(self, name: str) -> bool:
        found = self.value.get(name)
        if found is None:
            return False
        if not isinstance(found, bool):
            raise self._wrong(name, "true or false", found)
        return found

    def binary(self, name: str) -> bytes:
        """What a field holds in base64; line breaks in it do not count."""
        text = self.text(name).replace("\n", "").replace("\r", "")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ConfigError(f"{self._path(name)}: expected base64, found a text that is none") from None

    def items(self, name: str) -> list[Any]:
        found = self.value.get(name)
        if found is None:
            return []
        if not isinstance(found, list):
            raise self._wrong(name, "a list", found)
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        found = self.items(name)
        numbered = Fields(self._path(name), {f"[{number}]": item for number, item in enumerate(found)})
        return tuple(numbered.text(key) for key in numbered.value)

    def part(self, name: str) -> Fields:
        return Fields(self._path(name), self.value.get(name))

    def parts(self, name: str) -> list[Fields]:
        return [Fields(f"{self._path(name)}[{number}]", item) for number, item in enumerate(self.items(name))]

    def _path(self, name: str) -> str:
        return f"{self.where}{'' if not self.where or name.startswith('[') else '.'}{name}" if name else self.where

    def _wrong(self, name: str, expected: str, found: Any) -> ConfigError:
        """The value itself is never shown: it may be a secret."""
        kinds = {bool: "a boolean", str: "a text", list: "a list", dict: "an object"}
        kind = "a number" if type(found) in (int, float) else kinds.get(type(found), "something else")
        hint = ""
        if expected == "a text" and isinstance(found, bool | int | float):
            hint = "; put it in quotes"
        elif expected == "true or false" and isinstance(found, str):
            hint = "; leave out the quotes"
        where = self._path(name) or "the document"
        return ConfigError(f"{where}: expected {expected}, found {kind}{hint}")
