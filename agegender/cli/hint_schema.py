"""JSON Schemas of type hints and of plain values."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter

Schema = dict[str, Any]
INTERPOLATION: Schema = {"description": "an interpolation of OmegaConf", "type": "string", "pattern": r"\$\{"}


def hint_schema(hint: Any) -> Schema:
    """Return the schema of a type hint; `{}`, which allows anything, for a type that JSON doesn't have."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        # A member such as Lightning's `Strategy` is a node with `_target_`.
        parts = [hint_schema(each) or {"type": "object"} for each in typing.get_args(hint)]
        return _alternatives(parts)
    try:
        schema = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).json_schema()
    except (PydanticUserError, NameError, TypeError):
        return {}
    # Pydantic leaves a union empty whose members JSON doesn't have.
    return {} if any(text in json.dumps(schema) for text in ('"$ref"', '"anyOf": []')) else schema


def value_schema(value: Any) -> Schema:
    """Return the schema of a value's type: of an integer any number, as 1 may stand for 1.0; of null anything."""
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return {"type": kinds[type(value)]} if type(value) in kinds else {}


def any_of(parts: Sequence[Schema]) -> list[Schema]:
    """Return the different alternatives of schemas, in order, with nested `anyOf` flattened."""
    flat = [each for part in parts for each in (part["anyOf"] if list(part) == ["anyOf"] else [part])]
    return [part for place, part in enumerate(flat) if part not in flat[:place]]


def _alternatives(parts: Sequence[Schema]) -> Schema:
    found = any_of(parts)
    return found[0] if len(found) == 1 else {"anyOf": found}
