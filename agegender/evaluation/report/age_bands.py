"""The metrics by age band that are packed with a run's weights, read from the run's report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agegender.errors import AgeGenderError

_FIGURES = ("age_mae", "gender_acc", "coverage")


def read_age_bands(run: Path) -> list[dict[str, Any]] | None:
    """Read the metrics by age band from the report of a run.

    Args:
        run: Folder of the run.

    Returns:
        For each band with test images: `ages` (such as `20-29`), `images`, `age_mae` in years, and `gender_acc` and
        `coverage` (the fraction of true ages inside the predicted 80 % intervals) from 0 to 1; an unknown value is
        None. None if the run has no report.

    Raises:
        AgeGenderError: The report is damaged.
    """
    path = run / "report" / "report.json"
    try:
        slices = json.loads(path.read_text(encoding="utf-8"))["runs"][0]["slices"]["age"]
        return [_band(part) for part in slices]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise AgeGenderError(f"{path} can't be read as a report; make it anew: agegender report run={run}") from None


def _band(part: Mapping[str, Any]) -> dict[str, Any]:
    # where no interval was stated there is no coverage
    figures = {name: (part.get(name) or {}).get("value") for name in _FIGURES}
    rounded = {name: None if value is None else round(float(value), 4) for name, value in figures.items()}
    return {"ages": str(part["name"]), "images": int(part["images"]), **rounded}
