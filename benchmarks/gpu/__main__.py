"""Measure everything that one NVIDIA GPU can tell, in a given time.

`python -m benchmarks.gpu --minutes 12 --data data/UTKFace --out gpu_results` runs the steps in order. Each has a time
limit and a log, and none is stopped by an earlier one's failure. `--device cpu --faces 300` tries the same code without
a GPU. It needs no installation: PyTorch 2.11 or newer, Lightning and Hydra with their dependencies are enough.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import torch

from benchmarks.gpu.report import write_results
from benchmarks.gpu.runner import Setup, run_steps
from benchmarks.gpu.steps import STEPS


def main() -> None:
    """Run the steps, and exit with 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12, help="time limit of all steps")
    parser.add_argument("--data", type=Path, help="folder of UTKFace; drawn faces without it")
    parser.add_argument("--out", type=Path, required=True, help="new folder of the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", default=",".join(STEPS), help=f"comma-separated, of {', '.join(STEPS)}")
    parser.add_argument("--faces", type=int, help="trial: at most so many faces, short trainings and one seed")
    chosen = parser.parse_args()
    steps = chosen.steps.split(",")
    if unknown := [step for step in steps if step not in STEPS]:
        parser.error(f"--steps has no {', '.join(unknown)}; there are {', '.join(STEPS)}")
    if chosen.data and not chosen.data.is_dir():
        parser.error(f"--data {chosen.data} is no folder")
    if chosen.out.exists() and any(chosen.out.iterdir()):
        parser.error(f"--out {chosen.out} is not empty; name a new folder")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"error: PyTorch {torch.__version__} finds no NVIDIA GPU; use --device cpu --faces 300 for a trial")
    setup = Setup(chosen.out.resolve(), chosen.data.resolve() if chosen.data else None, chosen.device, chosen.faces)
    slower = 1 if chosen.device == "cuda" else 10
    outcomes = run_steps(setup, {step: slower * STEPS[step].limit for step in steps}, chosen.minutes)
    write_results(setup, outcomes, shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]]))
    print(f"results: {setup.out / 'RESULTS.md'}")
    sys.exit(any(outcome.state == "failed" for outcome in outcomes))


if __name__ == "__main__":
    main()
