"""Hooks of Schemathesis: a file of the API is an image, which a JSON schema can't express."""

from __future__ import annotations

import base64
import io

import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis.transport.serialization import Binary


def png(width: int, height: int, gray: int) -> bytes:
    """Returns an image file."""
    file = io.BytesIO()
    Image.new("L", (width, height), gray).save(file, "PNG")
    return file.getvalue()


IMAGES = st.builds(png, st.integers(1, 80), st.integers(1, 80), st.integers(0, 255))
schemathesis.openapi.format("binary", IMAGES.map(Binary))
schemathesis.openapi.format("byte", IMAGES.map(lambda image: base64.b64encode(image).decode()))
schemathesis.openapi.media_type("application/octet-stream", IMAGES)
