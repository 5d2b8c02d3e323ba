"""Which pictures does `img=` mean? A file, several, a folder, or a glob."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from agegender.errors import AgeGenderError

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "webp",
        "bmp",
        "gif",
        "tif",
        "tiff",
        "ppm",
        "pgm",
        "pnm",
        "tga",
        "ico",
        "jp2",
        "avif",
        "qoi",
        "dds",
    )
)


def image_arguments(arguments: Sequence[str]) -> list[str]:
    """Rewrites a command line so that any file name reaches the config unharmed.

    Hydra's grammar reads commas, spaces, brackets and `=` in a value as syntax. A person means a file by them. So
    `img=holiday (1).jpg` and names given without `img=` (as a shell's own globbing leaves them) become one quoted list.
    A value in brackets is left to Hydra, unless there is a file of that name.
    """
    images: list[str] = []
    rest: list[str] = []
    for argument in arguments:
        value = argument.removeprefix("img=")
        if value != argument:
            if value[:1] in ("[", "'", '"') and not os.path.lexists(value):
                rest.append(argument)
            elif "," in value and not os.path.lexists(value) and not glob.glob(value):
                images += value.split(",")
            else:
                images.append(value)
        elif not argument.startswith(("-", "+", "~")) and ("=" not in argument or os.path.lexists(argument)):
            images.append(argument)
        else:
            rest.append(argument)
    if images:
        rest.append(f"img=[{','.join(_quoted(image) for image in images)}]")
    return rest


def _quoted(text: str) -> str:
    """Quotes for Hydra's grammar, and keeps OmegaConf from reading `${...}` as an interpolation."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'") if "'" in text or text.endswith("\\") else text
    return "'" + escaped.replace("${", "\\${") + "'"


def list_images(given: Sequence[str]) -> list[str]:
    """Resolves files, folders (searched with their sub-folders for picture suffixes) and globs, in a fixed order.

    A name that leads nowhere stays in the list, so that its row can say so.

    Raises:
        AgeGenderError: Nothing at all was found.
    """
    found: list[str] = []
    for name in given:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = (Path(folder) / file for folder, _, files in os.walk(path) for file in files)
            found += sorted(str(file) for file in inside if file.suffix.lower() in SUFFIXES)
        elif not os.path.lexists(path) and glob.has_magic(name):
            found += sorted(glob.glob(str(path), recursive=True))
        else:
            found.append(str(path))
    if not found:
        raise AgeGenderError(
            f"no picture found at img={', '.join(given)}; give a file, a folder that holds some, or a glob"
        )
    return found
