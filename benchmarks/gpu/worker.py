"""Run one step: `python -m benchmarks.gpu.worker <step> <setup as JSON>`, which `runner` starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.gpu.figures import Recorder
from benchmarks.gpu.runner import Setup
from benchmarks.gpu.steps import STEPS


def main() -> None:
    """Run the step that the command line names."""
    name, given = sys.argv[1], json.loads(sys.argv[2])
    given["out"] = Path(given["out"])
    given["data"] = Path(given["data"]) if given["data"] else None
    setup = Setup(**given)
    STEPS[name].run(setup, Recorder(setup.out / f"{name}.jsonl"))


if __name__ == "__main__":
    main()
