"""The metrics by age band that are packed with a run's weights, read from the run's report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agegender.errors import AgeGenderError
from agegender.evaluation.statistics.metrics import AGE


def read_age_bands(run: Path) -> list[dict[str, Any]] | None:
    """Read the metrics by age band from the report of a run.

    Args:
        run: Folder of the run.

    Returns:
        For each band with test images: `ages` (such as `20-29`), `images`, and of every task `<task>_mae` in its unit,
        or `<task>_acc` from 0 to 1; `coverage` is the fraction of true ages inside the predicted 80 % intervals. An
        unknown value is None. None if the run has no report, or no test image has an age.

    Raises:
        AgeGenderError: The report is damaged.
    """
    path = run / "report" / "report.json"
    try:
        slices = json.loads(path.read_text(encoding="utf-8"))["runs"][0]["slices"]
        return [_band(part) for part in slices[AGE]] if AGE in slices else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise AgeGenderError(f"{path} can't be read as a report; make it anew: agegender report run={run}") from None


def _band(part: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: estimate["value"] for name, estimate in part["metrics"].items()}
    taken = {name: value for name, value in found.items() if name.endswith(("_mae", "_acc"))}
    taken["coverage"] = found.get(f"{AGE}_coverage")  # no interval, no coverage
    rounded = {name: None if value is None else round(float(value), 4) for name, value in taken.items()}
    return {"ages": str(part["name"]), "images": int(part["images"]), **rounded}
