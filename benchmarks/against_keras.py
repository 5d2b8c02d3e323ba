"""Training speed of `train.py` against Keras on TensorFlow, on the CPU, with the notebooks' networks and batch sizes.

Keras runs in a process of its own, and the two sides take turns: one waits while the other trains. Required ratio: 1.0
for each network, 1.3 on average. Needs `pip install tensorflow`, in this environment or in another one:
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
from agegender.models.network import MultiTaskNet
from benchmarks.paired import Paired
from benchmarks.training import Rival, Settings, Steps, measure

STEPS = {"gray_mae": 20, "rgb200_mse": 8, "he_mse": 3}  # training steps per turn: some seconds each


def keras_in(python: str, begun: ExitStack) -> Rival:
    """Return a function that starts the Keras side with this interpreter; the process ends with `begun`."""

    def start(settings: Settings, data: AgeGenderDataModule, net: MultiTaskNet) -> Steps:
        network_settings = {
            "model": settings["model"],
            "age": settings["tasks"]["age"],
            "bf16": settings["trainer"]["precision"] == "bf16-mixed",
            "image_size": data.image_size,
            "channels": data.channels,
            "batch_size": data.batch_size,
            "lr": settings["optim"]["lr"],
        }
        command = [python, str(Path(__file__).parent / "keras_side.py"), json.dumps(network_settings)]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, text=True)
        begun.enter_context(process)
        begun.callback(process.kill)

        def steps(count: int) -> int:
            assert process.stdin and process.stdout
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                sys.exit(f"error: the Keras process ended; check that `{python} -c 'import tensorflow'` works")
            return int(line)

        return steps

    return start


def against(network: str, python: str, rounds: int, overrides: list[str]) -> Paired:
    """Measure the training speed of one of the notebooks' networks on both sides."""
    chosen = [f"experiment={network}", "data=synthetic", *overrides]
    with ExitStack() as begun:
        return measure(chosen, STEPS[network], rounds, keras_in(python, begun))


def main() -> None:
    """Print the ratio of each network, and their mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="an interpreter with tensorflow installed")
    parser.add_argument("--rounds", type=int, default=5, help="number of pairs of turns")
    parser.add_argument("--networks", default=",".join(STEPS), help="a subset of %(default)s")
    parser.add_argument("overrides", nargs="*", help="settings of train.py; trainer=mixed is mixed_bfloat16 in Keras")
    chosen = parser.parse_args()
    found = [against(name, chosen.python, chosen.rounds, chosen.overrides) for name in chosen.networks.split(",")]
    for paired in found:
        print("against Keras:", paired)
    print(f"mean: {statistics.mean(paired.ratio for paired in found):.2f}x")


if __name__ == "__main__":
    main()
