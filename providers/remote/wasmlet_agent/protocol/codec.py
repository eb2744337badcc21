"""Converts values to JSON and back: attrs classes of `wasmlet.provider` and `wasmlet.model`, and the `messages`.

Reading is strict about types and tolerant about keys: text in place of a number is refused, and an unknown key is
ignored. What comes from the network is never trusted to have the right form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar, get_args

import attrs
import cattrs
import orjson
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from wasmlet.errors import InvalidInput
from wasmlet.model.inputs import Inputs, TokenKey
from wasmlet.model.status import ContainerState, Running, Terminated, Waiting

T = TypeVar("T")

_MESSAGE = 300
"""Characters of what is wrong with a body that are told."""
_STATES: Mapping[str, type[Any]] = {"waiting": Waiting, "running": Running, "terminated": Terminated}


def encode(value: Any) -> bytes:
    """JSON of an attrs instance; what has its default is left out."""
    return dumped(_fast.unstructure(value))


def dumped(plain: Any) -> bytes:
    """JSON of what `unstructure` gives.

    Text that is no Unicode, as of file names that are none, is told with question marks: an agent tells what a provider
    says, and goes on whatever that is.
    """
    try:
        return orjson.dumps(plain, default=dict)
    except TypeError:
        return orjson.dumps(_printable(plain), default=dict)


def _printable(plain: Any) -> Any:
    """The same with text only that JSON can have."""
    if isinstance(plain, str):
        return plain.encode("utf-8", "replace").decode()
    if isinstance(plain, Mapping):
        return {_printable(key): _printable(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [_printable(one) for one in plain]
    return plain


def decode(kind: type[T], body: bytes) -> T:
    """An instance of an attrs class from JSON.

    Raises:
        InvalidInput: it is no JSON, or not of the right form; the message names the field.
    """
    try:
        raw = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"expected JSON, found something else: {error}") from None
    return structure(kind, raw)


def structure(kind: type[T], raw: Any) -> T:
    """An instance of an attrs class from what JSON has.

    Raises:
        InvalidInput: it is not of the right form; the message names the field.
    """
    try:
        return _fast.structure(raw, kind)
    except Exception:
        return _explained(kind, raw)


def _explained(kind: type[T], raw: Any) -> T:
    """As `structure`, but three times as slow: it finds out what is wrong, and where."""
    try:
        return _explaining.structure(raw, kind)
    except RecursionError:
        raise InvalidInput(f"{kind.__name__}: nested too deep") from None
    except (cattrs.BaseValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        problems = [str(error)]
        if isinstance(error, cattrs.BaseValidationError):
            problems = cattrs.transform_error(error, format_exception=_said)
        raise InvalidInput(f"{kind.__name__}: {'; '.join(problems)}"[:_MESSAGE]) from None


def unstructure(value: Any) -> Any:
    """What `encode` makes JSON of."""
    return _fast.unstructure(value)


class _Wrong(ValueError):
    """A value is not of the right form; the text says what was expected and what was found."""


def _said(error: BaseException, kind: type[Any] | None) -> str:
    return str(error) if isinstance(error, _Wrong) else cattrs.v.format_exception(error, kind)


def _exactly(kind: type[Any]) -> Any:
    def check(value: Any, _: Any) -> Any:
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise _Wrong(f"expected {kind.__name__}, found {type(value).__name__}")
        return value

    return check


def _time(value: Any, _: Any) -> datetime:
    if not isinstance(value, str):
        raise _Wrong(f"expected a time, found {type(value).__name__}")
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise _Wrong("expected a time in RFC 3339") from None
    if found.tzinfo is None:
        raise _Wrong("expected a time with a zone")
    return found.astimezone(UTC)


def _state_out(state: ContainerState) -> dict[str, Any]:
    return {type(state).__name__.lower(): _fast.unstructure(state, type(state))}


def _state_in(converter: cattrs.Converter, raw: Any, _: Any) -> ContainerState:
    if not isinstance(raw, Mapping) or len(raw) != 1:
        raise _Wrong("expected one of waiting, running, terminated")
    ((name, fields),) = raw.items()
    if name not in _STATES:
        raise _Wrong(f"expected one of waiting, running, terminated, found {name!r}")
    state: ContainerState = converter.structure(fields, _STATES[name])
    return state


@attrs.frozen
class _TokenEntry:
    audience: str = ""
    expiration_seconds: int = 0
    token: str = attrs.field(default="", repr=False)


def _tokens_out(tokens: Mapping[TokenKey, str]) -> list[dict[str, Any]]:
    """Tokens as a list of entries: their keys are objects, which JSON does not allow as keys."""
    return [
        {"audience": key.audience, "expiration_seconds": key.expiration_seconds, "token": token}
        for key, token in tokens.items()
    ]


def _tokens_in(converter: cattrs.Converter, raw: Any, _: Any) -> dict[TokenKey, str]:
    entries = converter.structure(raw, list[_TokenEntry])
    return {TokenKey(entry.audience, entry.expiration_seconds): entry.token for entry in entries}


def _sequence_in(converter: cattrs.Converter, raw: Any, kind: Any) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise _Wrong(f"expected a list, found {type(raw).__name__}")
    (of,) = get_args(kind)[:1] or (Any,)
    return tuple(converter.structure(one, of) for one in raw)


def _mapping_in(converter: cattrs.Converter, raw: Any, kind: Any) -> dict[Any, Any]:
    if not isinstance(raw, dict):
        raise _Wrong(f"expected an object, found {type(raw).__name__}")
    _, of = get_args(kind) or (str, Any)
    return raw if of is Any else {key: converter.structure(value, of) for key, value in raw.items()}


def _make_converter(*, explains: bool) -> cattrs.Converter:
    converter = cattrs.Converter(omit_if_default=True, detailed_validation=explains)
    for kind in (str, int, float, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(datetime, _time)
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook_func(_is_sequence, partial(_sequence_in, converter))
    converter.register_structure_hook_func(_is_mapping, partial(_mapping_in, converter))
    converter.register_unstructure_hook_func(_is_json, lambda value: value)
    converter.register_unstructure_hook_func(lambda kind: kind == ContainerState, _state_out)
    converter.register_structure_hook_func(lambda kind: kind == ContainerState, partial(_state_in, converter))
    converter.register_unstructure_hook(
        Inputs,
        make_dict_unstructure_fn(
            Inputs, converter, _cattrs_omit_if_default=True, tokens=override(unstruct_hook=_tokens_out)
        ),
    )
    converter.register_structure_hook(
        Inputs, make_dict_structure_fn(Inputs, converter, tokens=override(struct_hook=partial(_tokens_in, converter)))
    )
    return converter


def _origin(kind: Any) -> Any:
    return getattr(kind, "__origin__", kind)


def _is_sequence(kind: Any) -> bool:
    variadic = _origin(kind) is tuple and get_args(kind)[1:] == (Ellipsis,)
    return _origin(kind) is Sequence or variadic


def _is_mapping(kind: Any) -> bool:
    return _origin(kind) in (Mapping, dict)


def _is_json(kind: Any) -> bool:
    """Whether values of this type are plain JSON already, so that they are passed on as they are."""
    return _is_mapping(kind) and get_args(kind)[1:] in ((Any,), (str,))


_fast = _make_converter(explains=False)
_explaining = _make_converter(explains=True)
