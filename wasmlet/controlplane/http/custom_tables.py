"""The tables of custom resources: the columns that a definition names, as `additionalPrinterColumns` have them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from wasmlet.controlplane.extensions import jsonpath
from wasmlet.controlplane.extensions.version import Version
from wasmlet.controlplane.http.cells import Cells, age
from wasmlet.controlplane.storage.status import Object

_NAME: Object = {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}


def columns(version: Version) -> list[Object]:
    """The column definitions of a version's table."""
    return [
        _NAME,
        *(
            {
                "name": column["name"],
                "type": column["type"],
                "format": column.get("format", ""),
                "description": column.get("description")
                or f"Custom resource definition column (in JSONPath format): {column['jsonPath']}",
                "priority": column.get("priority", 0),
            }
            for column in version.columns
        ),
    ]


def cells(version: Version, obj: Object, now: datetime) -> Cells:
    """The cells of one object."""
    name = obj["metadata"]["name"]
    return [name, *(_cell(column["type"], jsonpath.first(obj, column["jsonPath"]), now) for column in version.columns)]


def _cell(kind: str, value: Any, now: datetime) -> Any:
    """A value for a column of a type; None where there is no value, or one of another type."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case "string" if value is not None:
            return _text(value)
        case "integer" if number:
            return int(value)
        case "number" if number:
            return float(value)
        case "boolean" if isinstance(value, bool):
            return value
        case "date" if isinstance(value, str):
            return age(value, now)
    return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode()
