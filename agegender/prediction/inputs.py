"""Which pictures does `img=` mean? A file, several, a folder, or a glob."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from agegender.cli import quoted
from agegender.errors import AgeGenderError

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pnm .tga .ico .jp2 .avif .qoi .dds".split()  # noqa: SIM905
)

# Hydra's own; the word after one is no picture.
OPTIONS_WITH_VALUE = frozenset(
    ("--cfg", "-c", "--info", "-i", "--package", "-p", "--experimental-rerun")  # what Hydra shows or repeats
) | {"--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"}


def image_arguments(arguments: Sequence[str]) -> list[str]:
    """Rewrites a command line so that any file name reaches the config unharmed.

    Hydra's grammar reads commas, spaces, brackets and `=` in a value as syntax. A person means a file by them. So
    `img=holiday (1).jpg` and names given without `img=` (as a shell's own globbing leaves them) become one quoted list.
    A value in brackets is left to Hydra, unless there is a file of that name.
    """
    images: list[str] = []
    rest: list[str] = []
    for before, argument in zip(("", *arguments), arguments, strict=False):
        value = argument.removeprefix("img=")
        if value != argument:
            if value[:1] in ("[", "'", '"') and not os.path.lexists(value):
                rest.append(argument)
            elif "," in value and not os.path.lexists(value) and not glob.glob(value):
                images += value.split(",")
            else:
                images.append(value)
        elif before not in OPTIONS_WITH_VALUE and _is_file_name(argument):
            images.append(argument)
        else:
            rest.append(argument)
    named = [image for image in images if image]
    if named:
        rest.append(f"img=[{','.join(quoted(image) for image in named)}]")
    return rest


def _is_file_name(argument: str) -> bool:
    """Tells a bare file name from a setting; `+` and `~` begin settings too, unless there is a file of that name."""
    if argument.startswith("-"):
        return False
    return os.path.lexists(argument) or not ("=" in argument or argument.startswith(("+", "~")))


def list_images(given: Sequence[str]) -> list[str]:
    """Resolves files, folders (searched with their sub-folders for picture suffixes) and globs, in a fixed order.

    A name that leads nowhere stays in the list, so that its row can say so; an empty folder or glob does too, among
    others.

    Raises:
        AgeGenderError: Nothing at all was found.
    """
    found: list[str] = []
    for name in given:
        # os.path rather than Path: the latter raises on a name that is too long, and on `~` before an unknown user.
        path = name if os.path.lexists(name) else os.path.expanduser(name)
        if os.path.isdir(path):
            inside = (os.path.join(folder, file) for folder, _, files in os.walk(path) for file in files)
            pictures = sorted(file for file in inside if os.path.splitext(file)[1].lower() in SUFFIXES)
        elif not os.path.lexists(path) and glob.has_magic(path):
            pictures = sorted(glob.glob(path, recursive=True))
        else:
            pictures = [path]
        found += pictures or ([path] if len(given) > 1 else [])
    if not found:
        raise AgeGenderError(
            f"no picture found at img={', '.join(given)}; give a file, a folder that holds some, or a glob"
        )
    return found
