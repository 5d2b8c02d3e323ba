"""Out-of-fold predictions of a cross-validation, pooled into one run that can be reported."""

from __future__ import annotations

import csv
import hashlib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from agegender.sweeps.groups import FOLD, final_metrics
from agegender.sweeps.records import metrics_of, setting_key, write_record
from agegender.system.files import atomic_write

_OF_ONE_FOLD = (
    *("val/", "test/", "baseline/", "images/train", "images/val", "images/test"),
    *("leak/", "best_", "epochs", "seconds_", "images_per_", "train_seconds", "overrides"),
)


def pool_folds(folder: Path, jobs: Sequence[Mapping[str, Any]], varied: Sequence[str]) -> str | None:
    """Pool the predictions of jobs that are the folds of one split: each face is predicted by the fold that tests it.

    The folder of the sweep gets the files of a run: `predictions.csv`, `index.csv` and `metrics.json`, whose `val/...`
    are means over the folds.

    Args:
        folder: Folder of the sweep.
        jobs: Records of its jobs.
        varied: Keys of the settings that it varies.

    Returns:
        A sentence about the pooled predictions; None if the jobs are not folds, or were not tested.
    """
    if list(varied) != [FOLD]:
        return None
    tested = {_fold(job): job for job in jobs if not job["error"] and (folder / job["folder"] / _PREDICTIONS).exists()}
    if not tested:
        return None
    runs = {fold: folder / tested[fold]["folder"] for fold in sorted(tested)}
    count = _number_of_folds(next(iter(runs.values())))
    missing = [fold for fold in range(count) if fold not in runs]
    tables = [_read(run / _PREDICTIONS) for run in runs.values()]
    rows = [row for _, table in tables for row in table]
    if len({tuple(header) for header, _ in tables}) > 1 or len({row[0] for row in rows}) < len(rows):
        return "not pooled: the folds have different columns, or test some faces several times"
    results = _pooled_results([metrics_of(run) for run in runs.values()])
    failed = [_fold(job) for job in jobs if job["error"]]
    results |= {
        "images/test": len(rows),
        "overrides": " ".join(item for item in next(iter(tested.values()))["overrides"] if setting_key(item) != FOLD),
        "pooled": {"folds": count, "jobs": [tested[fold]["job"] for fold in runs], "missing": missing},
    }
    _write(folder / _PREDICTIONS, tables[0][0], rows)
    _write_index(next(iter(runs.values())) / _INDEX, folder / _INDEX)
    write_record(folder / "metrics.json", results)
    made = f"{len(rows):,} faces in {folder / _PREDICTIONS}"
    if not missing:
        return f"pooled from {count} folds, each face tested once: {made}"
    names = ", ".join(f"{fold}{' (failed)' if fold in failed else ''}" for fold in missing)
    return f"pooled from {len(runs)} of {count} folds, not complete: fold {names} missing: {made}"


_PREDICTIONS, _INDEX = "predictions.csv", "index.csv"


def _fold(job: Mapping[str, Any]) -> int:
    return next(int(item.partition("=")[2]) for item in job["overrides"] if setting_key(item) == FOLD)


def _number_of_folds(run: Path) -> int:
    return int(OmegaConf.select(OmegaConf.load(run / ".hydra" / "config.yaml"), "data.folds"))


def _pooled_results(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entries of `metrics.json` that the folds share, means of their validation metrics, and their tasks."""
    shared = {
        key: value
        for key, value in folds[0].items()
        if not key.startswith(_OF_ONE_FOLD) and all(fold.get(key) == value for fold in folds)
    }
    validated = [{key: value for key, value in final_metrics(fold).items() if key.startswith("val/")} for fold in folds]
    names = [name for name in validated[0] if all(name in fold for fold in validated)]
    shared |= {name: statistics.fmean(fold[name] for fold in validated) for name in names}
    prints = [str(fold.get("split_fingerprint")) for fold in folds]
    shared["split_fingerprint"] = hashlib.sha256(" ".join(prints).encode()).hexdigest()[:12]
    # Initial weights were trained under another split: the report warns of a leak.
    others = [fold.get("weights_split_fingerprint") for fold in folds]
    leaks = [other for own, other in zip(prints, others, strict=True) if other not in (None, own)]
    shared.pop("weights_split_fingerprint", None)
    if leaks:
        shared["weights_split_fingerprint"] = leaks[0]
    copies = sum(fold.get("leak/with_copy") or 0 for fold in folds)
    if copies:
        shared |= {"leak": f"{copies:,} test faces have a copy in the training of their fold", "leak/with_copy": copies}
    tasks = zip(*(fold["tasks"] for fold in folds), strict=True)  # each task's entries in the folds
    shared["tasks"] = [
        {**entries[0], "min_confidence": statistics.fmean(entry["min_confidence"] for entry in entries)}
        for entries in tasks
    ]
    return shared


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a table; `surrogateescape` preserves paths that are not UTF-8."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    return header, rows


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with atomic_write(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([header, *rows])


def _write_index(source: Path, target: Path) -> None:
    """Copy the list of the faces without the column `split`, which is another in every fold."""
    header, rows = _read(source)
    kept = [place for place, name in enumerate(header) if name != "split"]
    _write(target, [header[place] for place in kept], [[row[place] for place in kept] for row in rows])
