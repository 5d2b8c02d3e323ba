"""Read the `robustness.json` of a run, and build the command line that creates it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agegender.errors import require
from agegender.system.files import display_path

CLEAN = "clean"
MEAN = "mean"  # unweighted, over all corruptions
RESAMPLES, SEED = 2000, 0  # defaults of the command

_NEEDED = {"run", "images", "command", "warnings", "tasks", "metrics"}


def read_robustness(folder: Path) -> dict[str, Any] | None:
    """Return the contents of a run's `robustness.json`; None if the run was not evaluated.

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
    """Return the shell command that evaluates a run.

    Args:
        run: The run as the user gave it.
        given: Further settings; None and default values are left out.
    """
    usual = {"split": "test", "resamples": RESAMPLES, "seed": SEED}
    shown = display_path(Path(run)) if Path(run).exists() else run
    settings = {name: value for name, value in (given or {}).items() if value != usual.get(name)}
    arguments = [f"run={shown}", *(f"{name}={value}" for name, value in settings.items())]
    return f"agegender robustness {shlex.join(arguments)}"
