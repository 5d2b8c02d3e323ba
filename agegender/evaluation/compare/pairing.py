"""What two runs have in common: their test faces, and which of their predictions are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from agegender.errors import require
from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.report.run_reader import Run
from agegender.evaluation.statistics.mcnemar import McNemar, mcnemar
from agegender.evaluation.statistics.task_values import task_values

# What two runs must have been tested on: `any` images, the `same` images, or at least some `common` ones, which they
# are then restricted to.
Tested = Literal["any", "same", "common"]


def pair(runs: Sequence[Run], tested: Tested) -> list[Run]:
    """Return two runs as they may be compared.

    Args:
        runs: The runs; a single one is returned as it is.
        tested: See `Tested`.

    Raises:
        AgeGenderError: The runs were tested on different faces, or one face has different labels in both.
    """
    if len(runs) < 2 or tested == "any":
        return list(runs)
    first, second = (run.predictions for run in runs)
    common = set(first.names) & set(second.names)
    if tested == "same":
        same = len(common) == len(first.names) == len(second.names)
        hint = f"{len(common):,} are common, common=true compares these" if common else "none is common"
        require(same, f"the runs were tested on different faces ({fingerprints(runs)}): {hint}")
    require(bool(common), f"no face was tested by both runs ({fingerprints(runs)}): compare runs of the same data")
    both = [select(run.predictions, common) for run in runs]
    for label in both[0].labels.keys() & both[1].labels.keys():
        differ = int((~np.isclose(both[0].labels[label], both[1].labels[label], equal_nan=True)).sum())
        require(not differ, f"{differ:,} faces have another {label} in the other run: compare runs of the same data")
    return [replace(run, predictions=predictions) for run, predictions in zip(runs, both, strict=True)]


def fingerprints(runs: Sequence[Run]) -> str:
    """Return the number of test faces and the fingerprint of the split of each run, for messages."""
    splits = (str(run.results.get("split_fingerprint", "unknown")) for run in runs)
    counts = (len(run.predictions.names) for run in runs)
    return ", ".join(
        f"{label}: {count:,} of split {split}" for label, count, split in zip("AB", counts, splits, strict=True)
    )


def select(run: RunPredictions, names: set[str]) -> RunPredictions:
    """Return the predictions of some of the images; `names` are names in the index."""
    rows = np.flatnonzero([name in names for name in run.names])
    if len(rows) == len(run.names):
        return run
    return replace(
        run,
        paths=[run.paths[row] for row in rows],
        names=[run.names[row] for row in rows],
        labels={label: values[rows] for label, values in run.labels.items()},
        columns={column: values[rows] for column, values in run.columns.items()},
        clusters=np.unique(run.clusters[rows], return_inverse=True)[1].astype(np.int64),
    )


def class_tests(runs: Mapping[str, RunPredictions]) -> dict[str, McNemar]:
    """Return McNemar's test of the accuracy of each common task with classes; both runs have the same images."""
    first, second = runs.values()
    names = {task.name for task in second.tasks}
    found = {}
    for task in (task for task in first.tasks if task.name in names and task.kind != "number"):
        (right, known), (right_too, known_too) = (
            task_values(task, run.labels, run.columns)["acc"] for run in (first, second)
        )
        both = known & known_too
        found[task.name] = mcnemar(right[both] > 0, right_too[both] > 0)
    return found
