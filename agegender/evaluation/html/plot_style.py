"""The common style of all plots, and their export to PNG, without matplotlib's global state."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GRAY = "#1f77b4", "#e8590c", "#2f9e44", "#868e96"
COLORS = (BLUE, ORANGE, GREEN, "#9c36b5", GRAY)


def new_plot(width: float = 5.2, height: float = 3.6) -> tuple[Figure, Axes]:
    """Return an empty figure of this size in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    return figure, axes


def to_png(figure: Figure) -> bytes:
    """Render the figure as PNG. The bytes depend on the drawn content only: no date and no version are embedded."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
