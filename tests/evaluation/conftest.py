"""Pages with blank plots, for the tests that read the rest of a page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.blank_plots import blank_plots


@pytest.fixture
def undrawn() -> Iterator[None]:
    """Saves the time that drawing takes."""
    with blank_plots():
        yield
