"""Effect of leaked copies: the metrics of a run on test images with a copy in its training part, and on the others.

`python -m benchmarks.leak logs/small_copies logs/small`: the run with the leak, and a run without one
(`data.duplicates=near`), whose `index.csv` lists the copies. The last two rows are the test images common to both runs.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agegender.cli.main import report_errors
from agegender.errors import require
from agegender.evaluation.report.predictions_file import RunPredictions
from agegender.evaluation.report.run_reader import Run, find_runs, read_run
from agegender.evaluation.statistics.task_values import likeliest
from agegender.tasks.info import TaskInfo


def leaked(leaky: Path, clean: Path) -> set[str]:
    """Return the test images of the leaky run that have a copy among its training or validation images.

    Args:
        leaky: Folder of the run with the leak.
        clean: Folder of the run whose `index.csv` holds the groups of copies.

    Raises:
        AgeGenderError: The two runs are not on the same images.
    """
    groups = defaultdict(set)
    for row in _index(clean):
        groups[row["duplicate_group"]].add(row["file"])
    tested = {row["file"]: "test" in row["split"] for row in _index(leaky)}  # includes `val+test` of a random split
    same = tested.keys() == set().union(*groups.values())
    require(same, f"{leaky} and {clean} are not on the same images; give two runs of the same data")
    straddling = [files for files in groups.values() if not all(tested[file] for file in files)]
    return {file for files in straddling for file in files if tested[file]}


def _index(run: Path) -> list[dict[str, str]]:
    with (run / "index.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def row(name: str, run: Run, names: Iterable[str]) -> str:
    """Return a table row: the number of images, and for each task the MAE or the accuracy in percent.

    Args:
        name: Name of the row.
        run: The run.
        names: Images to include, by their names in the index.
    """
    taken, predictions = set(names), run.predictions
    own = np.array([name in taken for name in predictions.names])
    return f"{name:44} {own.sum():6,}" + "".join(
        f" {_metric(predictions, task, own):10.2f}" for task in predictions.tasks
    )


def _metric(predictions: RunPredictions, task: TaskInfo, chosen: NDArray[np.bool_]) -> float:
    known = chosen & predictions.known(task)
    label = predictions.labels[task.label][known]
    if task.kind == "number":
        return float(np.abs(predictions.columns[task.columns[0]][known] - label).mean())
    return 100 * float((likeliest(task, predictions.columns)[0][known] == label).mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("leaky", help="a run with data.duplicates=none or exact, or data.split=random")
    parser.add_argument("clean", help="a run of the same data with data.duplicates=near")
    folders = parser.parse_args()
    with report_errors():
        leaky, clean = (read_run(find_runs(folder)[0]) for folder in (folders.leaky, folders.clean))
        copies = leaked(leaky.folder, clean.folder)
        require(bool(copies), f"{leaky.folder} has no leak: no test image has a copy in training or validation")
        own, other = set(leaky.predictions.names), set(clean.predictions.names)
        titles = (task.name if task.kind == "number" else f"{task.name} %" for task in leaky.predictions.tasks)
        print(f"{'test images':44} {'images':>6}" + "".join(f" {title:>10}" for title in titles))
        print(row("with the leak: all", leaky, own))
        print(row("with the leak: a copy is in training or validation", leaky, copies))
        print(row("with the leak: no copy there", leaky, own - copies))
        print(row("with the leak: no copy, tested by both", leaky, (own - copies) & other))
        print(row("without it: the same images", clean, (own - copies) & other))


if __name__ == "__main__":
    main()
