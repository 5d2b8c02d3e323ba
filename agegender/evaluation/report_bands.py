"""What a run's report says of each age band, in the few figures that travel with the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agegender.errors import AgeGenderError

_FIGURES = ("age_mae", "gender_acc", "coverage")


def read_bands(run: Path) -> list[dict[str, Any]] | None:
    """Read the figures by age band from the report of a run.

    Args:
        run: Its folder.

    Returns:
        For each band with test images `ages` (such as `20-29`), `images`, `age_mae` in years, and `gender_acc` and
        `coverage` (the share of true ages in the stated 80 % intervals) from 0 to 1; a figure that is not known is
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
        raise AgeGenderError(
            f"{path} can't be read as a report; make it anew: python -m agegender.evaluation.report run={run}"
        ) from None


def _band(part: Mapping[str, Any]) -> dict[str, Any]:
    # reports that were made before there were intervals have no coverage
    figures = {name: (part.get(name) or {}).get("value") for name in _FIGURES}
    rounded = {name: None if value is None else round(float(value), 4) for name, value in figures.items()}
    return {"ages": str(part["name"]), "images": int(part["images"]), **rounded}
