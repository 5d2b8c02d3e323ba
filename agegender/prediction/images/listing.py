"""Resolution of `img=`: files, folders, globs, URLs, videos, cameras, streams, and names on standard input."""

from __future__ import annotations

import glob
import os
import select
import sys
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from typing import Any

from agegender.config.overrides import ADDRESS, WEBCAM
from agegender.errors import AgeGenderError, require
from agegender.prediction.images.live import LiveStream, live_frames
from agegender.prediction.images.sources import FLUSH, NamedImage, as_named_image
from agegender.prediction.images.video import frames, is_video
from agegender.prediction.writers.annotate import is_annotated
from agegender.system.terminal import printable

_IMAGES = """
    .jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pnm .tga .ico .jp2 .avif .qoi .dds
    .heic .heif .hif
"""
SUFFIXES = frozenset(_IMAGES.split())
_NAMED_KINDS = 8  # suffixes in the line on what is left out of a folder

NO_NAME = "img=- found no name on standard input: write one name per line"


class StandardInput(str):
    """The name `-`; a plain `str` of the same value is a file name."""

    __slots__ = ()


def are_endless(names: Sequence[str]) -> bool:
    """Return whether there is a source without a known length among names from `list_images`."""
    return any(isinstance(name, StandardInput | LiveStream) for name in names)


def are_live(names: Sequence[str]) -> bool:
    """Return whether there is a camera or stream, which ends by Ctrl-C, among names from `list_images`."""
    return any(isinstance(name, LiveStream) for name in names)


def list_images(given: Sequence[str]) -> list[str]:
    """Resolve files, folders (searched recursively for image suffixes) and globs to names, in a fixed order.

    A line on standard error counts by suffix what is left out of a folder, and the images that an earlier run
    annotated: of a folder or a glob, these are left out too.

    A path that doesn't exist stays in the list and gets an error in its row. So does an empty folder or glob among
    several names. Folders that a glob matches are skipped. URLs of images are unchanged; `-` becomes a
    `StandardInput`, and `webcam`, a number (unless a file has that name) and the URL of a stream a `LiveStream`.

    Raises:
        AgeGenderError: Nothing was found, a folder can't be listed, or standard input is closed.
    """
    found: list[str] = []
    remarks: list[str] = []
    for name in given:
        if name == "-":
            require(sys.stdin is not None, "img=- reads names from standard input, which is closed here")
            found.append(StandardInput(name))
            continue
        stream = LiveStream.parse(name)
        if stream and (stream == WEBCAM or not os.path.lexists(name)):
            found.append(stream)
            continue
        if name.startswith(ADDRESS):
            found.append(name)
            continue
        # os.path and not Path, which raises for a name that is too long and for `~` of an unknown user
        path = name if os.path.lexists(name) else os.path.expanduser(name)
        if os.path.isdir(path):
            walk = os.walk(path, onerror=_refuse)
            inside = sorted(os.path.join(folder, file) for folder, _, files in walk for file in files)
            pictures = _images_of(name, inside, remarks, SUFFIXES)
        elif not os.path.lexists(path) and glob.has_magic(path):
            matches = sorted(match for match in glob.glob(path, recursive=True) if not os.path.isdir(match))
            pictures = _images_of(name, matches, remarks)
        else:
            pictures = [path]
        found += pictures or ([path] if len(given) > 1 else [])
    if not found:
        raise AgeGenderError(
            f"no image found at img={', '.join(given)}; give a file, a folder of images, or a glob of files"
            + "".join(f" ({remark})" for remark in remarks)
        )
    for remark in remarks:
        print(printable(remark), file=sys.stderr)
    return found


def _images_of(
    name: str, files: Sequence[str], remarks: list[str], suffixes: Container[str] | None = None
) -> list[str]:
    """Return the images of a folder or glob, and add a remark on what is left out: other suffixes, annotated images."""
    images: list[str] = []
    left_out: Counter[str] = Counter()
    for file in files:
        suffix = os.path.splitext(file)[1]
        if suffixes is not None and suffix.lower() not in suffixes:
            left_out[suffix[:20] or "without a suffix"] += 1
        elif is_annotated(file):
            left_out["annotated by an earlier run"] += 1
        else:
            images.append(file)
    if left_out:
        kinds = [f"{count} {kind}" for kind, count in left_out.most_common()]
        more = len(kinds) - _NAMED_KINDS
        line = ", ".join(kinds[:_NAMED_KINDS]) + (f" and {more} further suffixes" if more > 0 else "")
        video = next((kind for kind in left_out if is_video(f"a{kind}")), None)
        hint = f"; videos are read if they are named: img='{os.path.join(name, '**', f'*{video}')}'" if video else ""
        remarks.append(f"left out of {name}: {line}{hint}")
    return images


def expand_stdin(names: Sequence[str]) -> list[str]:
    """Replace `-` by the names on standard input, which is read to its end.

    Raises:
        AgeGenderError: There is no name, or one is a camera or a stream, which has no end.
    """
    whole: list[str] = []
    for name in names:
        if isinstance(name, LiveStream):
            raise AgeGenderError(f"shard= needs a finite list: leave out img={name.public_name} or shard=")
        whole += [line for line in _with_lines([name]) if line is not None]
    if not whole:
        raise AgeGenderError(NO_NAME)
    return whole


def _refuse(error: OSError) -> None:
    """Raise an error where `os.walk` would skip the folder silently."""
    raise AgeGenderError(f"the folder {error.filename} can't be listed ({error.strerror})") from None


def open_images(names: Sequence[str], frame_interval: float) -> Iterator[NamedImage]:
    """Yield the images behind names, and the frames of videos, cameras and streams; files are read lazily.

    A `FLUSH` is yielded before a possible wait for the next image.

    Args:
        names: Names from `list_images`. `-` is replaced by the lines of standard input, each the name of a file or a
            video, or a URL, without expansion.
        frame_interval: Seconds between frames.

    Raises:
        AgeGenderError: Standard input holds no name, and no other was given.
    """
    nothing = True
    for name in _with_lines(names):
        if name is None:
            yield FLUSH
            continue
        nothing = False
        if isinstance(name, LiveStream):
            for frame in live_frames(name, frame_interval):
                yield frame
                yield FLUSH
        elif is_video(name):
            yield from frames(name, frame_interval)
        else:
            yield as_named_image(name)
    if nothing and names:  # a shard may be empty
        raise AgeGenderError(NO_NAME)


def _with_lines(names: Sequence[str]) -> Iterator[str | None]:
    for name in names:
        if isinstance(name, StandardInput):
            yield from _lines_of_standard_input()
        else:
            yield name


def _lines_of_standard_input() -> Iterator[str | None]:
    """Yield lines as they arrive, and None before waiting for more."""
    stdin: Any = sys.stdin.buffer  # bytes: a file name need not be valid in any encoding
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
    except (OSError, ValueError):  # no descriptor, or not a socket on Windows: batches are filled without pauses
        return False
