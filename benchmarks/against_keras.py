"""`train.py` against Keras on TensorFlow, on this machine's CPU: the notebooks' networks, batch sizes, in turn.

Keras runs in a process of its own and waits while `train.py`'s Trainer takes its steps, and the other way round. Floor:
1.0 for each network, 1.3 on average. It needs `pip install tensorflow`, here or in an environment of its own:
`python -m benchmarks.against_keras --python other/bin/python`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from agegender.data.datamodule import AgeGenderDataModule
from agegender.models.network import AgeGenderNet
from benchmarks.paired import Paired
from benchmarks.training import Rival, Settings, Steps, measure

STEPS = {"gray_mae": 20, "rgb200_mse": 8, "he_mse": 3}  # in a turn: some seconds each


def keras_in(python: str, begun: ExitStack) -> Rival:
    """Return what starts the Keras side with this interpreter; it ends with `begun`."""

    def start(settings: Settings, data: AgeGenderDataModule, net: AgeGenderNet) -> Steps:
        told = {name: settings[name] for name in ("model", "age")} | {
            "bf16": settings["trainer"]["precision"] == "bf16-mixed",
            "image_size": data.image_size,
            "channels": data.channels,
            "batch_size": data.batch_size,
            "lr": settings["optim"]["lr"],
        }
        command = [python, str(Path(__file__).parent / "keras_side.py"), json.dumps(told)]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, text=True)
        begun.enter_context(process)
        begun.callback(process.kill)

        def steps(count: int) -> int:
            assert process.stdin and process.stdout
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                sys.exit(f"error: the Keras side ended; does `{python} -c 'import tensorflow'` work?")
            return int(answer)

        return steps

    return start


def against(network: str, python: str, rounds: int, overrides: list[str]) -> Paired:
    """Measure one of the notebooks' networks."""
    chosen = [f"experiment={network}", "data=synthetic", *overrides]
    with ExitStack() as begun:
        return measure(chosen, STEPS[network], rounds, keras_in(python, begun))


def main() -> None:
    """Print a ratio per network, and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has tensorflow")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of turns")
    parser.add_argument("--networks", default=",".join(STEPS), help="some of %(default)s")
    parser.add_argument("overrides", nargs="*", help="settings of train.py; trainer=mixed is mixed_bfloat16 in Keras")
    chosen = parser.parse_args()
    found = [against(name, chosen.python, chosen.rounds, chosen.overrides) for name in chosen.networks.split(",")]
    for paired in found:
        print("against Keras:", paired)
    print(f"mean: {statistics.mean(paired.ratio for paired in found):.2f}x")


if __name__ == "__main__":
    main()
