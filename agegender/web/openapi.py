"""The description of the HTTP API: OpenAPI 3.1, served as `/openapi.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agegender.prediction.prediction import columns_of
from agegender.tasks.info import UNSURE, TaskInfo
from agegender.version import __version__
from agegender.web.uploads import FIELD, MAX_FILES

_STRING = {"type": "string"}
_FILE = {"type": "string", "format": "binary", "description": "An image file."}
_BASE64 = {"type": "string", "format": "byte", "description": "An image file in base64, or such a data: URL."}
_NUMBER = {"type": ["number", "null"]}
_ERRORS = {
    "400": "The Host header, the setting, the form or the JSON is invalid.",
    "403": "The request comes from a page of another site.",
    "408": "The upload took too long.",
    "413": "The files or an image are too large.",
    "422": "The file is not an image that can be read.",
    "503": "The server is busy.",
    "504": "The images took too long.",
}


def describe_api(tasks: Sequence[TaskInfo], detects: Sequence[str], detect: str) -> dict[str, Any]:
    """Return the description, without `servers`.

    Args:
        tasks: The predictor's tasks.
        detects: Possible values of `detect`.
        detect: Its default.
    """
    parameter = {
        "name": "detect",
        "in": "query",
        "description": "Whether faces are detected: always, except in aligned crops (auto), or never.",
        "schema": {"type": "string", "enum": list(detects), "default": detect},
    }
    predict = {
        "summary": "Predict for the faces in one image or in several",
        "operationId": "predict",
        "parameters": [parameter],
        "requestBody": {"required": True, "content": _bodies()},
        "responses": {
            "200": _json(
                "The answer for one file; for several, or a list in JSON, the list of their answers.",
                {"oneOf": [_ref("Answer"), {"type": "array", "items": _ref("Answer")}]},
            ),
            **{status: _error(text) for status, text in _ERRORS.items()},
        },
    }
    status = {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "agegender", "version": __version__, "description": "Age and gender from images of faces."},
        "paths": {
            "/api/predict": {"post": predict},
            "/api/info": {"get": _get("info", "Describe the weights, their tasks and the limits", {"type": "object"})},
            "/health": {"get": _get("health", "Report that the server runs", status)},
            "/openapi.json": {"get": _get("openapi", "Describe the API", {"type": "object"})},
        },
        "components": {"schemas": {"Answer": _answer(), "Face": _face(tasks), "Error": _object(error=_STRING)}},
    }


def _bodies() -> dict[str, Any]:
    files = {"type": "array", "items": _FILE, "minItems": 1, "maxItems": MAX_FILES}
    images = {"type": "array", "items": _BASE64, "minItems": 1, "maxItems": MAX_FILES}
    return {
        "application/octet-stream": {"schema": _FILE},
        "multipart/form-data": {"schema": _object(**{FIELD: files})},
        "application/json": {"schema": {"oneOf": [_closed(image=_BASE64), _closed(images=images)]}},
    }


def _answer() -> dict[str, Any]:
    size = {"type": ["integer", "null"], "description": "Of the upright image, in pixels."}
    error = {"type": ["string", "null"], "description": "Why there are no faces."}
    return _object(width=size, height=size, faces={"type": "array", "items": _ref("Face")}, error=error)


def _face(tasks: Sequence[TaskInfo]) -> dict[str, Any]:
    names: dict[str, Any] = {info.name: {"enum": [*info.classes, UNSURE, None]} for info in tasks if info.classes}
    fields = [name for name in columns_of(tasks) if name not in ("path", "error")]
    return _object(**{name: names.get(name, _NUMBER) for name in fields})


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _closed(**properties: Any) -> dict[str, Any]:
    return {**_object(**properties), "additionalProperties": False}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _error(text: str) -> dict[str, Any]:
    """Return the description of an error; Starlette's and Uvicorn's own ones are plain text."""
    error = _json(text, _ref("Error"))
    error["content"]["text/plain"] = {"schema": _STRING}
    return error


def _get(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    answers = {"200": _json("The answer.", schema), "400": _error("The Host header is invalid.")}
    return {"summary": text, "operationId": name, "responses": answers | {"503": _error(_ERRORS["503"])}}
