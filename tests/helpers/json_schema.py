"""A validator of the keywords of JSON Schema (draft 2020-12) that `agegender schema` writes."""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
}
_ANNOTATIONS = {"$schema", "$defs", "title", "description", "default", "then", "format"}


def is_valid(value: Any, schema: dict[str, Any] | bool, root: dict[str, Any]) -> bool:
    """Returns whether a value is valid; a keyword that is not implemented is an error."""
    if isinstance(schema, bool):
        return schema
    return all(_keyword(name, value, schema, root) for name in schema if name not in _ANNOTATIONS)


def _keyword(name: str, value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    wanted = schema[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match name:
        case "$ref":
            return is_valid(value, root["$defs"][wanted.removeprefix("#/$defs/")], root)
        case "type":
            return any(_has_type(value, each) for each in ([wanted] if isinstance(wanted, str) else wanted))
        case "enum":
            return any(type(value) is type(each) and value == each for each in wanted)
        case "const":
            return bool(value == wanted)
        case "anyOf":
            return any(is_valid(value, each, root) for each in wanted)
        case "if":
            return not is_valid(value, wanted, root) or is_valid(value, schema["then"], root)
        case "pattern":
            return not isinstance(value, str) or re.search(wanted, value) is not None
        case "minimum":
            return not number or value >= wanted
        case "exclusiveMinimum":
            return not number or value > wanted
        case "maximum":
            return not number or value <= wanted
        case "properties":
            return not isinstance(value, dict) or all(
                is_valid(value[key], each, root) for key, each in wanted.items() if key in value
            )
        case "propertyNames":
            return not isinstance(value, dict) or all(is_valid(key, wanted, root) for key in value)
        case "additionalProperties":
            known = schema.get("properties", {})
            return not isinstance(value, dict) or all(
                is_valid(each, wanted, root) for key, each in value.items() if key not in known
            )
        case "prefixItems":
            return not isinstance(value, list) or all(map(is_valid, value, wanted, [root] * len(value)))
        case "items":
            return not isinstance(value, list) or all(is_valid(each, wanted, root) for each in value)
        case "minItems":
            return not isinstance(value, list) or len(value) >= wanted
        case "maxItems":
            return not isinstance(value, list) or len(value) <= wanted
    raise NotImplementedError(name)


def _has_type(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
