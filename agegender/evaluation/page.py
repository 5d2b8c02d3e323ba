"""A page that opens offline: sections of text, tables, plots and faces become one HTML file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from agegender.files import write_whole

__all__ = ["Card", "Page", "Plot", "Section", "Table", "face_uri", "write_page"]


@dataclass(frozen=True)
class Plot:
    """A drawing.

    Attributes:
        name: File name of the PNG, without its ending; also the picture's anchor in the page.
        caption: What it shows and how to read it, in a sentence.
        png: The file's bytes.
    """

    name: str
    caption: str
    png: bytes

    @property
    def uri(self) -> str:
        """The picture itself, as an address that needs no file."""
        return _uri(self.png, "png")


@dataclass(frozen=True)
class Table:
    """A table of text; numbers are formatted by whoever makes it. The first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Card:
    """One face with a caption of one or more lines; `uri` is empty if the picture can't be shown."""

    uri: str
    lines: Sequence[str]
    title: str = ""


@dataclass(frozen=True)
class Section:
    """One question and its answer: text, then tables, plots, and rows of faces that belong together."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    faces: Sequence[Sequence[Card]] = ()


@dataclass(frozen=True)
class Page:
    """The whole page.

    Attributes:
        title: Its heading.
        facts: What the page is about, in pairs of name and value.
        sections: In reading order.
        notes: Lines at the end: how it was made, what it doesn't say.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    notes: Sequence[str] = field(default_factory=tuple)


def face_uri(picture: Image.Image, side: int = 112) -> str:
    """Returns a picture as an address that needs no file: a JPEG that fits a square of `side` pixels."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return _uri(buffer.getvalue(), "jpeg")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def write_page(page: Page, path: Path, plots: Path | None = None) -> None:
    """Writes the page, and each of its plots as a PNG.

    Args:
        page: What to write; all text is escaped.
        path: The HTML file. It refers to nothing outside itself.
        plots: Folder for the PNGs; None to write none.
    """
    environment = Environment(loader=PackageLoader("agegender.evaluation"), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("page.html.j2").render(page=page)
    # A file name may hold bytes that are no UTF-8 (surrogates in Python): a page shows them as question marks.
    with write_whole(path, "w", encoding="utf-8", errors="replace") as file:
        file.write(html)
    if plots is not None:
        for plot in (plot for section in page.sections for plot in section.plots):
            with write_whole(plots / f"{plot.name}.png") as file:
                file.write(plot.png)
