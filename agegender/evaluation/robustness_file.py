"""What a robustness measurement leaves in a run's folder, and which command line makes it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agegender.errors import require
from agegender.evaluation.report import shown_path

CLEAN = "clean"
MEAN = "mean"  # over the changes, each counting alike
RESAMPLES, SEED = 2000, 0  # unless the command says otherwise

_NEEDED = {"run", "images", "command", "warnings"}


def read_robustness(folder: Path) -> dict[str, Any] | None:
    """Read what `python -m agegender.evaluation.robustness` left in a run's folder; None if it never did.

    Raises:
        AgeGenderError: The file is damaged.
    """
    path = folder / "robustness" / "robustness.json"
    if not path.is_file():
        return None
    try:
        numbers: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        whole = set(numbers) >= _NEEDED and set(numbers["conditions"]) >= {CLEAN, MEAN}
    except (OSError, ValueError, LookupError, TypeError):
        whole = False
    require(whole, f"{path} is damaged: remove it, or measure again with {robustness_command(str(folder))}")
    return numbers


def robustness_command(run: str, given: Mapping[str, Any] | None = None) -> str:
    """Return the command line that measures a run, for a shell.

    Args:
        run: As the user gave it.
        given: Further settings; those that are None, or as they are by default, are left out.
    """
    usual = {"resamples": RESAMPLES, "seed": SEED}
    shown = shown_path(Path(run)) if Path(run).exists() else run
    settings = {name: value for name, value in (given or {}).items() if value != usual.get(name)}
    arguments = [f"run={shown}", *(f"{name}={value}" for name, value in settings.items())]
    return f"python -m agegender.evaluation.robustness {shlex.join(arguments)}"
