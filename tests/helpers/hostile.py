"""Hostile inputs: file names and decompression bombs."""

from __future__ import annotations

import io
import os
import struct
import zlib

from PIL import Image

FORMULAS = (
    "=cmd|'calc'!A0.jpg",
    "+1.jpg",
    "-1+1.jpg",
    "@SUM(1).jpg",
    "\t=1.jpg",
    "\r=1.jpg",
    "\n=1.jpg",
    "\uff1d1.jpg",
)
TAGS = ("<img src=x onerror=alert(1)>.jpg", "<script>alert(1)<b>.jpg", "\"onload='alert(1)'.jpg", "&lt;b&gt;.jpg")
BYTES = (os.fsdecode(b"\xff\xfe.jpg"), os.fsdecode(b"caf\xe9.jpg"))
LONG = ("a" * 251 + ".jpg", "é" * 125 + ".jpg")  # the longest that a file system accepts, in bytes
NAMES = (*FORMULAS, *TAGS, *BYTES, *LONG, "{{7*7}}.jpg", "${name}.jpg", "%s%n.jpg", "a\x1b[31m.jpg", "$(id).jpg")


def chunk(kind: bytes, body: bytes) -> bytes:
    """Returns a chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """Returns a PNG file that declares a size and holds no pixels of it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"\0" * 50))


def _patched(form: str, place: int, size: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, form)
    content = bytearray(file.getvalue())
    content[place : place + len(size)] = size
    return bytes(content)


def _jpeg(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    place = file.getvalue().index(b"\xff\xc0") + 5
    return _patched("JPEG", place, struct.pack(">HH", side, side))


def _tiff(side: int) -> bytes:
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (278, 4, side)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in [*tags, (279, 4, side * side)])
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 8) + entries + struct.pack("<I", 0) + b"\0" * 200


def _icon(inside: bytes) -> bytes:
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


_TEXT = zlib.compress(b"\0" * 200_000_000, 9)  # 200 KB

# Bombs by kind: files of at most some hundred kilobytes that expand to gigabytes.
BOMBS = {
    "png": png(30_000, 30_000),
    "png, far too large": png(2**31 - 1, 2**31 - 1),
    "png, its text": png(8, 8, chunk(b"zTXt", b"Comment\0\0" + _TEXT)),
    "png, its international text": png(8, 8, chunk(b"iTXt", b"Comment\0\1\0\0\0" + _TEXT)),
    "png, its color profile": png(8, 8, chunk(b"iCCP", b"x\0\0" + _TEXT)),
    "jpeg": _jpeg(65_500),
    "gif": _patched("GIF", 6, struct.pack("<HH", 65_535, 65_535)),
    "bmp": _patched("BMP", 18, struct.pack("<ii", 50_000, 50_000)),
    "tiff": _tiff(60_000),
    "ppm": b"P6 60000 60000 255\n" + b"\0" * 100,
    "tga": _patched("TGA", 12, struct.pack("<HH", 65_535, 65_535)),
    "qoi": b"qoif" + struct.pack(">II", 60_000, 60_000) + b"\3\0" + b"\0" * 100,
    "icon": _icon(png(30_000, 30_000)),
}
