"""Find finished runs and read their files: metrics, predictions, curves, and an earlier robustness evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agegender.distributed.launcher import script
from agegender.errors import AgeGenderError, require
from agegender.evaluation.report.curves import Curves, read_curves
from agegender.evaluation.report.predictions_file import RunPredictions, read_predictions, retest
from agegender.evaluation.robustness.results_file import read_robustness


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, `metrics.json`, predictions and curves, and `robustness.json` if there is one."""

    folder: Path
    results: dict[str, Any]
    predictions: RunPredictions
    curves: Curves
    robustness: dict[str, Any] | None = None


def find_runs(given: str | Sequence[str] | None, logs: Path = Path("logs")) -> list[Path]:
    """Resolve the setting `run` to run folders.

    Args:
        given: A run's folder, a folder of runs (its newest tested run is taken), a list of them, or None for the newest
            tested run below `logs`.
        logs: Root folder of all runs.

    Raises:
        AgeGenderError: There is no such run, or it was not tested.
    """
    if not given:
        found = _tested(logs)
        require(bool(found), f"no tested run below {logs.resolve()}; train one ({script('train')}) or give run=...")
        return found[-1:]
    return [_find_run(Path(name)) for name in ([given] if isinstance(given, str) else given)]


def _find_run(path: Path) -> Path:
    require(path.exists(), f"run={path} does not exist; give a run's folder (logs/...)")
    require(path.is_dir(), f"run={path} is a file; give the folder of the run")
    if (path / "predictions.csv").is_file():
        return path
    runs = _tested(path)
    if runs:
        return runs[-1]
    if (path / "checkpoints").is_dir() or (path / "metrics.json").is_file():
        raise AgeGenderError(_untested(path))
    raise AgeGenderError(f"{path} holds no predictions.csv, and no folder in it does; give a run's folder (logs/...)")


def _untested(folder: Path) -> str:
    return (
        f"{folder} has no predictions.csv: run its test first, {script('train')} fit=false weights={folder}, and "
        "report on the folder that this makes"
    )


def _tested(folder: Path) -> list[Path]:
    """Return the tested runs below a folder, the newest last, after the evaluations that trained nothing.

    An evaluation may be of other data; it is reported by naming its own folder.
    """
    found = [path.parent for path in folder.glob("**/predictions.csv")]
    return sorted(found, key=lambda run: ((run / "checkpoints").is_dir(), (run / "predictions.csv").stat().st_mtime))


def read_run(folder: Path) -> Run:
    """Read the files of a run that a report needs: `predictions.csv`, `metrics.json`, and others if they exist.

    Raises:
        AgeGenderError: A file is missing or damaged.
    """
    require((folder / "predictions.csv").is_file(), _untested(folder))
    results = _read_results(folder / "metrics.json")
    predictions = read_predictions(folder, results)
    if results.get("duplicates") == "none":  # copies were not searched for, so index.csv lists none
        predictions = replace(predictions, duplicates_known=False, label_noise={})
    return Run(folder, results, predictions, read_curves(folder), read_robustness(folder))


def _read_results(path: Path) -> dict[str, Any]:
    require(path.is_file(), f"{path} is missing: the run stopped between its test and its end; {retest()}")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AgeGenderError(f"{path} is damaged ({error}); {retest()}") from None
    require(isinstance(results, dict), f"{path} is damaged (it holds no object); {retest()}")
    pooled = results.get("pooled", {"folds": 1, "missing": []})
    fits = isinstance(pooled, dict) and isinstance(pooled.get("folds"), int) and isinstance(pooled.get("missing"), list)
    require(fits, f"{path} is damaged (pooled: {pooled}); repeat the sweep's command with resume=auto")
    return dict(results)
