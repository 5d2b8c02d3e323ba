"""Speed of `predict.py`: one image, a folder of images, and the whole command.

The weights are untrained, which does not change the speed. Requirements, all relative to what the same machine does in
the same run: a forward pass at a third of the rate of a matrix product; a folder of photographs at 0.85 of the bare
decoder's rate; a cold start in 1.5 times the import time of torch and torchvision; the response to `--help` and to a
misspelled key in 8 times the import time of Hydra. `python -m benchmarks.predicting`.
"""

from __future__ import annotations

import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import agegender
from agegender.data.decode import eval_transform, read_image
from agegender.data.sources.synthetic import generate_faces
from agegender.models.network import MultiTaskNet
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.prediction.predictor import MAX_CHUNK, Predictor
from agegender.system.malloc import disable_malloc_trim
from agegender.system.progress import available_cores
from benchmarks.bare import decode, network_of
from benchmarks.faces import parser
from benchmarks.latency import milliseconds, one_thread
from benchmarks.paired import Paired, in_turn

ROOT = Path(__file__).parent.parent
SIZE = 128  # image size of the default network, which takes gray images
PHOTO = 3000, 2000  # pixels of a photograph; sensor noise is added


def untrained(path: Path, *overrides: str) -> Path:
    """Write a checkpoint of untrained weights, with the entries that prediction reads."""
    network = network_of(*overrides)
    built = MultiTaskNet(**network)
    weights = {f"network.{name}": value for name, value in built.state_dict().items()}
    described = {"network": network, "split": None, "tasks": [info.to_dict() for info in built.infos]}
    torch.save({"agegender": {"version": agegender.__version__, **described}, "state_dict": weights}, path)
    return path


def forward_pass(*overrides: str, calls: int = 200) -> tuple[float, float]:
    """Time a forward pass of one image on one CPU thread.

    Returns:
        Its median in milliseconds, and its arithmetic rate as a fraction of the machine's own: that of a product of two
        matrices of 512 x 512, timed beside it. It is thread time, independent of other processes on a busy machine.
    """
    network = network_of(*overrides)
    built = MultiTaskNet(**network).eval().to(memory_format=torch.channels_last)
    size = network["image_size"]
    image = torch.randint(0, 256, (1, size, size, network["in_channels"]), dtype=torch.uint8).permute(0, 3, 1, 2)
    factors = torch.rand(2, 512, 512)
    with one_thread(), torch.inference_mode():
        with FlopCounterMode(display=False) as counted:
            built(image)
        passes = milliseconds(lambda: built(image), calls, time.thread_time)
        products = milliseconds(lambda: torch.mm(*factors), calls, time.thread_time)
    median = float(np.median(passes))
    own_rate = 2 * 512**3 / float(np.median(products))
    return median, counted.get_total_flops() / median / own_rate


def throughput(folder: Path, rounds: int = 5, with_network: bool = False) -> Paired:
    """Time `Predictor.predict` over a folder on the CPU, in turn with bare loops in one process per core.

    Args:
        folder: Folder of images.
        rounds: Number of pairs of measurements.
        with_network: The bare loops run the network too, with the predictor's batch size: the difference is the cost of
            threads, ordering and results. Without it they only decode.
    """
    paths = sorted(folder.glob("*.jpg"))
    cores = available_cores()
    parts = [paths[core::cores] for core in range(cores)]
    bare = _decode_and_answer if with_network else partial(decode, size=SIZE, grayscale=True)
    disable_malloc_trim()  # as predict.py and the bare loops do
    with tempfile.TemporaryDirectory() as where:
        weights = untrained(Path(where, "untrained.ckpt"))
        predictor = Predictor(weights, "cpu", detect="never")
        # Spawned, not forked: a fork copies the state of this process's threads, but not the threads.
        with multiprocessing.get_context("spawn").Pool(cores, _open, (weights,)) as pool:
            return in_turn(
                f"predicting {folder.name} against bare decoders{' and networks' if with_network else ''}",
                lambda: sum(prediction.error is None for prediction in predictor.predict(paths)),
                lambda: sum(pool.map(bare, parts, chunksize=1)),
                rounds,
            )


_bare: dict[str, MultiTaskNet] = {}  # the network of a pool process


def _open(weights: Path) -> None:
    disable_malloc_trim()
    torch.set_num_threads(1)
    _bare["network"] = TorchBackend(weights, "cpu").network


def _decode_and_answer(paths: Sequence[Path]) -> int:
    for start in range(0, len(paths), MAX_CHUNK):
        part = paths[start : start + MAX_CHUNK]
        pixels = np.stack([eval_transform(read_image(path), SIZE, grayscale=True) for path in part])
        with torch.inference_mode():
            _bare["network"](torch.from_numpy(pixels).permute(0, 3, 1, 2))
    return len(paths)


def photographs(folder: Path, count: int = 24) -> Path:
    """Write JPEGs of a camera's size to a new folder: upscaled synthetic faces with noise.

    Returns:
        `folder`.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as where:
        for face in sorted(generate_faces(Path(where, "faces"), count).glob("*.jpg")):
            with Image.open(face) as image:
                large = np.asarray(image.resize(PHOTO, Image.Resampling.BICUBIC), dtype=np.float32)
            noisy = large + rng.normal(0, 5, large.shape[:2]).astype(np.float32)[..., None]
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / face.name, quality=90)
    return folder


def cold_start(rounds: int = 5) -> Paired:
    """Time `python predict.py img=x.jpg weights=...` and `python -c "import torch, torchvision"` in turn."""
    with tempfile.TemporaryDirectory() as where:
        weights = untrained(Path(where, "untrained.ckpt"))
        face = min(generate_faces(Path(where, "faces"), 1).glob("*.jpg"))
        predict = [str(ROOT / "predict.py"), f"img={face}", f"weights={weights}"]
        return in_turn(
            "predict.py against importing torch and torchvision",
            lambda: _run(predict, Path(where), 0),
            lambda: _run(["-c", "import torch, torchvision"], Path(where), 0),
            rounds,
        )


def answers_at_once(argument: str, code: int, rounds: int = 3) -> Paired:
    """Time `train.py` with one argument, which needs no torch, and `python -c "import hydra"` in turn."""
    with tempfile.TemporaryDirectory() as where:
        return in_turn(
            f"train.py {argument} against importing hydra",
            lambda: _run([str(ROOT / "train.py"), argument], Path(where), code),
            lambda: _run(["-c", "import hydra.main"], Path(where), 0),
            rounds,
        )


AT_ONCE = {"--help": 0, "trainr.max_epochs=3": 2}  # argument -> exit code


def _run(arguments: list[str], where: Path, code: int) -> int:
    done = subprocess.run([sys.executable, *arguments], cwd=where, capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise RuntimeError(f"{arguments} ended with {done.returncode}: {done.stderr}")
    return 1


def main() -> None:
    """Print each measurement on a line."""
    chosen = parser("Speed of predict.py.").parse_args()
    for name, overrides in {
        "default, grayscale": (),
        "residual, RGB": ("model=residual", "data.grayscale=false"),
    }.items():
        took, share = forward_pass(*overrides)
        print(
            f"forward pass of one image ({name}) on one thread: {took:.2f} ms, {share:.2f} of the matrix product's rate"
        )
    with tempfile.TemporaryDirectory() as where:
        crops = chosen.data or generate_faces(Path(where, "crops of 200 x 200"), 512, size=200)
        for folder in (crops, photographs(Path(where, f"photographs of {PHOTO[0]} x {PHOTO[1]}"))):
            for with_network in (False, True):
                print(throughput(folder, chosen.rounds, with_network), flush=True)
    start = cold_start(chosen.rounds)
    print(f"{start}; it takes {1 / start.ratio:.2f} of their wall time", flush=True)
    for argument, code in AT_ONCE.items():
        answered = answers_at_once(argument, code)
        print(f"{answered}; {1 / statistics.median(answered.ours):.2f} s")


if __name__ == "__main__":
    main()
