"""Latency of one face on one CPU thread: of the network alone, and of `Predictor` from file to prediction.

The face is a synthetic one of 200 x 200 pixels, decoded from its file in every call, without face detection
(`detect=never`); its content doesn't change the time. With `--onnx` an exported file is timed too.
`python -m benchmarks.latency [--weights default ...] [--onnx model.onnx]`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from agegender.cli.main import report_errors
from agegender.data.decode import eval_transform, read_image
from agegender.data.sources.synthetic import generate_faces
from agegender.errors import require
from agegender.evaluation.statistics.metrics import Floats
from agegender.prediction.predictor import BackendName, Predictor
from benchmarks.heading import heading, named_weights

WARM_UP = 20


def milliseconds(work: Callable[[], object], calls: int, clock: Callable[[], float] = time.process_time) -> Floats:
    """Return the duration of each call after a warm-up, in milliseconds `[calls]`.

    Args:
        work: The timed function.
        calls: Number of measured calls.
        clock: Clock in seconds. The default is process time: with one active thread it equals wall time on an idle
            machine, and is independent of other processes on a busy one.
    """
    times = []
    for _ in range(WARM_UP + calls):
        start = clock()
        work()
        times.append(clock() - start)
    return 1000 * np.array(times[WARM_UP:])


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit PyTorch to one thread within the context."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measure(predictor: Predictor, face: Path, calls: int) -> dict[str, Floats]:
    """Return the latencies of one face in milliseconds `[calls]`: of the network, and from file to prediction."""
    network = predictor.network
    pixels = np.stack([eval_transform(read_image(face), network.image_size, network.grayscale)])
    with one_thread():
        return {
            "network": milliseconds(lambda: network(pixels), calls),
            "Predictor": milliseconds(lambda: predictor(face), calls),
        }


def in_words(times: Floats) -> str:
    """Return the median, the range of the central 90 % and the whole range, as text."""
    low, median, high = np.quantile(times, (0.05, 0.5, 0.95))
    return f"{median:.2f} ms (90 % within {low:.2f} to {high:.2f}; all within {times.min():.2f} to {times.max():.2f})"


def main() -> None:
    """Print two lines for each of the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", default=["default"], help="as predict.py takes them")
    parser.add_argument("--onnx", nargs="*", default=[], help="files of `agegender export`")
    parser.add_argument("--calls", type=int, default=500, help="that are timed, after a warm-up")
    chosen = parser.parse_args()
    require(chosen.calls > 0, f"--calls {chosen.calls}: give the number of calls to time, 1 or more")
    given: list[tuple[str, BackendName]] = [(name, "torch") for name in chosen.weights]
    given += [(name, "onnx") for name in chosen.onnx]
    predictors = [Predictor(name, "cpu", detect="never", backend=backend) for name, backend in given]
    print(heading("latency"))
    with tempfile.TemporaryDirectory() as where:
        face = min(generate_faces(Path(where, "face"), 1, size=200).glob("*.jpg"))
        for (name, backend), predictor in zip(given, predictors, strict=True):
            print(f"{backend}: {named_weights(name, predictor.weights)}")
            for what, times in measure(predictor, face, chosen.calls).items():
                print(f"  {what:<10}{in_words(times)}", flush=True)


if __name__ == "__main__":
    with report_errors():
        main()
