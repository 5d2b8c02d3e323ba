"""Which pictures does `img=` mean? Files, folders, globs, addresses, a list on standard input, videos, a camera."""

from __future__ import annotations

import glob
import os
import select
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any

from agegender.errors import AgeGenderError
from agegender.overrides import ADDRESS
from agegender.prediction.sources import PAUSE, Picture, named
from agegender.prediction.video import SUFFIXES as VIDEOS
from agegender.prediction.video import WEBCAM, frames

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pnm .tga .ico .jp2 .avif .qoi .dds".split()  # noqa: SIM905
)

NO_NAME = "img=- found no name on standard input: give it some, each on a line of its own"


class Live(StrEnum):
    """What gives its pictures little by little; the name of a file, were it the same, is a plain `str`."""

    STANDARD_INPUT = "-"
    WEBCAM = WEBCAM


def list_images(given: Sequence[str]) -> list[str]:
    """Resolves files, folders (searched with their sub-folders for picture suffixes) and globs, in a fixed order.

    A name that leads nowhere stays in the list, so that its row can say so; an empty folder or glob does too, among
    others. Of what a glob matches the files are taken. Addresses stay; `-` and `webcam` are one of `Live` then.

    Raises:
        AgeGenderError: Nothing at all was found, a folder can't be listed, or standard input is closed.
    """
    found: list[str] = []
    for name in given:
        if name == Live.STANDARD_INPUT and sys.stdin is None:
            raise AgeGenderError("img=- reads names from standard input, which is closed here")
        if name.startswith(ADDRESS) or name in [*Live]:
            found.append(Live(name) if name in [*Live] else name)
            continue
        # os.path rather than Path: the latter raises on a name that is too long, and on `~` before an unknown user.
        path = name if os.path.lexists(name) else os.path.expanduser(name)
        if os.path.isdir(path):
            walk = os.walk(path, onerror=_refuse)
            inside = (os.path.join(folder, file) for folder, _, files in walk for file in files)
            pictures = sorted(file for file in inside if os.path.splitext(file)[1].lower() in SUFFIXES)
        elif not os.path.lexists(path) and glob.has_magic(path):
            pictures = sorted(match for match in glob.glob(path, recursive=True) if not os.path.isdir(match))
        else:
            pictures = [path]
        found += pictures or ([path] if len(given) > 1 else [])
    if not found:
        raise AgeGenderError(
            f"no picture found at img={', '.join(given)}; give a file, a folder that holds some, or a glob of files"
        )
    return found


def read_whole_list(names: Sequence[str]) -> list[str]:
    """Returns the names with those on standard input in its place, which are all read first.

    Raises:
        AgeGenderError: There is none, or there is a camera among them, whose pictures have no end.
    """
    whole: list[str] = []
    for name in names:
        if name is Live.WEBCAM:
            raise AgeGenderError("shard= needs a list that has an end: leave out img=webcam, or shard=")
        whole += [line for line in _with_lines([name]) if line is not None]
    if not whole:
        raise AgeGenderError(NO_NAME)
    return whole


def _refuse(error: OSError) -> None:
    """Passes over no folder in silence, as `os.walk` would."""
    raise AgeGenderError(f"the folder {error.filename} can't be listed ({error.strerror})") from None


def open_images(names: Sequence[str], every: float) -> Iterator[Picture]:
    """Yields the pictures behind names, of a video or the camera its frames; each is read when its turn comes.

    Where the next one may be long in coming there is a `PAUSE`.

    Args:
        names: As `list_images` has them. `-` stands for the lines of standard input, each a name of a file, a video or
            an address that is taken as it is.
        every: Seconds from one frame to the next.

    Raises:
        AgeGenderError: There is no name on standard input, and none was given beside it.
    """
    nothing = True
    for name in _with_lines(names):
        if name is None:
            yield PAUSE
            continue
        nothing = False
        if name is Live.WEBCAM:
            for frame in frames(name, every):
                yield frame
                yield PAUSE
        elif os.path.splitext(name)[1].lower() in VIDEOS:
            yield from frames(name, every)
        else:
            yield named(name)
    if nothing and names:  # a shard may be empty
        raise AgeGenderError(NO_NAME)


def _with_lines(names: Sequence[str]) -> Iterator[str | None]:
    for name in names:
        if name is Live.STANDARD_INPUT:
            yield from _lines_of_standard_input()
        else:
            yield name


def _lines_of_standard_input() -> Iterator[str | None]:
    """Yields each line when it is there, and None before a wait for more."""
    stdin: Any = sys.stdin.buffer  # bytes: a name need not be text in any encoding
    rest = b""
    while True:
        if _nothing_there():
            yield None
        read = stdin.read1(1 << 16)
        *lines, rest = (rest + read).split(b"\n") if read else (rest, b"")
        yield from (os.fsdecode(line.rstrip(b"\r")) for line in lines if line.strip())
        if not read:
            return


def _nothing_there() -> bool:
    try:
        return not select.select([sys.stdin], [], [], 0)[0]
    except (OSError, ValueError):  # no descriptor behind it, or one that Windows can't ask: then batches fill up
        return False
