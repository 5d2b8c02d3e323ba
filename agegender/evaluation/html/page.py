"""Self-contained HTML pages of sections with text, tables, plots and faces; they open offline."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from agegender.errors import AgeGenderError
from agegender.system.files import atomic_write

__all__ = ["BigNumber", "Card", "Page", "Plot", "Section", "Table", "face_uri", "write_page", "write_page_with_numbers"]


@dataclass(frozen=True)
class Plot:
    """A plot as a PNG file.

    Attributes:
        name: File name of the PNG without its extension; also the image's anchor in the page.
        caption: What the plot shows and how to read it, in a sentence.
        png: Contents of the file.
    """

    name: str
    caption: str
    png: bytes

    @property
    def uri(self) -> str:
        """The PNG as a data URI."""
        return _uri(self.png, "png")


@dataclass(frozen=True)
class Table:
    """A table of text; callers format the numbers. The first column is the row header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Card:
    """One face with a caption of one or more lines; `uri` is empty if the image can't be shown."""

    uri: str
    lines: Sequence[str]
    title: str = ""


@dataclass(frozen=True)
class Section:
    """A section of a page: text, then tables, plots, and rows of faces."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    faces: Sequence[Sequence[Card]] = ()


@dataclass(frozen=True)
class BigNumber:
    """A number in large letters at the top of a page.

    Attributes:
        value: The number with its unit.
        label: What it is.
        detail: A further line, such as its interval.
    """

    value: str
    label: str
    detail: str = ""


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: Heading.
        facts: Pairs of name and value, shown below the heading.
        sections: In reading order.
        notes: Lines at the end: how the page was made, and its limits.
        sentence: The main result, below the heading.
        numbers: The main numbers, below the sentence.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    notes: Sequence[str] = field(default_factory=tuple)
    sentence: str = ""
    numbers: Sequence[BigNumber] = ()


def face_uri(picture: Image.Image, side: int = 112) -> str:
    """Return an image as a data URI: a JPEG that fits into a square of `side` pixels."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return _uri(buffer.getvalue(), "jpeg")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def write_page(page: Page, path: Path, plots: Path | None = None) -> None:
    """Write the page, and each of its plots as a PNG.

    Args:
        page: The page; all its text is escaped.
        path: The HTML file. It refers to no other file.
        plots: Folder for the PNGs; None to write none.
    """
    loader = PackageLoader("agegender.evaluation.html", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("page.html.j2").render(page=page)
    # A file name may hold bytes that are not UTF-8 (surrogates in Python): the page shows them as question marks.
    with atomic_write(path, "w", encoding="utf-8", errors="replace") as file:
        file.write(html)
    if plots is not None:
        for plot in (plot for section in page.sections for plot in section.plots):
            with atomic_write(plots / f"{plot.name}.png") as file:
                file.write(plot.png)


def write_page_with_numbers(page: Page, numbers: Mapping[str, Any], folder: Path, name: str) -> None:
    """Write the page, its plots, and the numbers behind it as JSON: `<name>.html` and `<name>.json` in a folder.

    Raises:
        AgeGenderError: The folder can't be written.
    """
    try:
        write_page(page, folder / f"{name}.html", plots=folder)
        with atomic_write(folder / f"{name}.json", "w", encoding="utf-8") as file:
            json.dump(numbers, file, indent=1, allow_nan=False)
            file.write("\n")
    except OSError as error:
        raise AgeGenderError(
            f"{folder} can't be written ({error.strerror}); give another folder with out=..."
        ) from None
