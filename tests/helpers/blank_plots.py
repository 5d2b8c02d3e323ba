"""Plots as blank pictures of their size, for tests of the text and the tables around them: drawing takes longest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image


@contextmanager
def blank_plots() -> Iterator[None]:
    """Saves every figure as a blank picture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", _save_blank)
        yield


def _save_blank(figure: Figure, file: Any, dpi: int, **_: Any) -> None:
    width, height = (round(dpi * side) for side in figure.get_size_inches())
    Image.new("L", (width, height), 255).save(file, "PNG")
