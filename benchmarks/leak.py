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

from agegender.cli.main import report_errors
from agegender.errors import require
from agegender.evaluation.report.run_reader import Run, find_runs, read_run


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
    """Return a table row: number of images, age MAE in years, and gender accuracy in percent.

    Args:
        name: Name of the row.
        run: The run.
        names: Images to include, by their names in the index.
    """
    taken, answers = set(names), run.answers
    own = np.array([name in taken for name in answers.names])
    age = np.abs(answers.age - answers.age_pred)[own].mean()
    gender = ((answers.p_female > 0.5) == (answers.gender == 1))[own].mean()
    return f"{name:44} {own.sum():6,} {age:8.2f} {100 * gender:8.2f}"


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
        own, other = set(leaky.answers.names), set(clean.answers.names)
        print(f"{'test images':44} {'images':>6} {'MAE':>8} {'gender %':>8}")
        print(row("with the leak: all", leaky, own))
        print(row("with the leak: a copy is in training or validation", leaky, copies))
        print(row("with the leak: no copy there", leaky, own - copies))
        print(row("with the leak: no copy, tested by both", leaky, (own - copies) & other))
        print(row("without it: the same images", clean, (own - copies) & other))


if __name__ == "__main__":
    main()
