"""Steps that are whole runs of `train.py` and `predict.py`."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

from benchmarks.gpu.figures import Recorder
from benchmarks.gpu.runner import Setup
from benchmarks.gpu.runs import Run, predict, train

# On a CPU; docs/results.md has the commands. Years, and the fraction of correct genders.
GRAY_MAE = (6.24, 0.9058)
SPREAD = (0.2, 0.015)  # between seeds of one recipe, in years and in gender accuracy
FACE_TEACHERS = ("loss.teacher=0.3", "trainer.max_epochs=10")
# The earlier systems: the published score that is to be beaten, if there is one (name in metrics.json, value).
EARLIER: dict[str, tuple[str, float | None]] = {
    "rgb200_mse": ("test/age_mse", 75.36),
    "he_mse": ("test/age_mse", None),
    "age_classes": ("test/age_mae", None),
    "wide_heads": ("test/age_mae", None),
    "gray_mae": ("test/age_mae", 6.75),
}
EPOCHS = 30  # of the earlier systems
QUICK = ("test=false", "report=false")


def smoke(setup: Setup, record: Recorder) -> None:
    """Train, in mixed precision too, resume, profile, and predict as on the CPU."""
    short = ("experiment=quickstart", "trainer.max_epochs=2")
    drawn = Setup(setup.out, None, setup.device, 400)
    first = train(drawn, "smoke", *short)
    record("quickstart, 2 epochs", first.metrics["train_seconds"], "s", command=first.command)
    mixed = train(drawn, "smoke_mixed", *short, "trainer=mixed", "trainer.profiler=pytorch", "report=false")
    profiled = list((mixed.folder / "profiler").glob("*"))
    record("files of trainer.profiler=pytorch", len(profiled), "", goal=1, most=False, command=mixed.command)
    resumed = train(drawn, "smoke_mixed", "trainer.max_epochs=3", resume=True)
    record("epochs after a resume", resumed.metrics["epochs"], "", goal=3, most=False, command=resumed.command)
    faces = _test_faces(first)
    answers = {}
    for device in dict.fromkeys((setup.device, "cpu")):
        out = setup.out / f"smoke_{device}.csv"
        predict(
            setup,
            out,
            f"img=[{','.join(map(str, faces))}]",
            f"weights={first.folder}",
            f"device={device}",
            "detect=never",
        )
        answers[device] = [float(row["age"]) for row in _rows(out)]
    differences = [abs(a - b) for a, b in zip(answers[setup.device], answers["cpu"], strict=True)]
    record("largest difference of an age to the CPU's", round(max(differences), 4), "years", goal=0.05)


def classic(setup: Setup, record: Recorder) -> None:
    """Train `gray_mae` for its 30 epochs, with three seeds."""
    for seed in range(3):
        run = train(setup, f"gray_mae_{seed}", "experiment=gray_mae", "trainer=mixed", f"seed={seed}", _memory(setup))
        record(f"gray_mae, seed {seed}: training", run.metrics["train_seconds"], "s", goal=20, command=run.command)
        record(f"gray_mae, seed {seed}: epochs", run.metrics["epochs"])
        record(f"gray_mae, seed {seed}: images per second", run.metrics["images_per_second"])
        worst = GRAY_MAE[0] + SPREAD[0]
        record(f"gray_mae, seed {seed}: test age MAE", run.metrics["test/age_mae"], "years", goal=worst)
        least = GRAY_MAE[1] - SPREAD[1]
        record(f"gray_mae, seed {seed}: test gender", run.metrics["test/gender_acc"], goal=least, most=False)
        _record_memory(setup, record, f"gray_mae, seed {seed}")


def synchronization(setup: Setup, record: Recorder) -> None:
    """Count the operations that wait for the GPU in an epoch of training and validation."""
    for name in ("gray_mae", "small"):
        path = setup.out / f"sync_{name}.json"
        probe = ("+callbacks.sync._target_=benchmarks.gpu.probes.SyncProbe", f"+callbacks.sync.path={path}")
        quiet = ("trainer.log_every_n_steps=100000",)  # logging reads the loss, which waits
        train(
            setup, f"sync_{name}", f"experiment={name}", "trainer=mixed", "trainer.max_epochs=2", *QUICK, *probe, *quiet
        )
        found = json.loads(path.read_text())
        for stage, waits in found["waits"].items():
            batches = found["batches"].get(stage, 0)
            # A validation batch waits once, for the rows of its corrupted copies (`corrupt_any`).
            goal = {"train": 0, "val": 1}[stage]
            record(f"{name}, {stage}: waits per batch", sum(waits.values()) / max(1, batches), goal=goal)
            for place, times in waits.items():
                record(f"{name}, {stage}: {times} waits", place)


def kernels(setup: Setup, record: Recorder) -> None:
    """Profile steps of two recipes: the time in which the GPU is busy."""
    for name in ("gray_mae", "small"):
        path = setup.out / f"kernels_{name}.txt"
        probe = ("+callbacks.kernels._target_=benchmarks.gpu.probes.KernelProbe", f"+callbacks.kernels.path={path}")
        run = train(
            setup, f"kernels_{name}", f"experiment={name}", "trainer=mixed", "trainer.max_epochs=2", *QUICK, *probe
        )
        found = json.loads(path.with_suffix(".json").read_text())
        record(f"{name}: device busy in a profiled step", found["busy"], command=run.command)
        record(f"{name}: duration of a profiled step", found["milliseconds"], "ms")
        record(f"{name}: kernels (on a CPU, operations) per step", found["kernels"])


def settings(setup: Setup, record: Recorder) -> None:
    """Compare the speed of `small` between settings: `compile`, batch size, pixels on the device, augmentation."""
    base = ("experiment=small", "trainer=mixed", *QUICK)
    rows: dict[str, tuple[int | str, ...]] = {
        "as it is": (3,),
        "data.on_device=false": (3, "data.on_device=false"),
        "augment=none": (3, "augment=none"),
        "augment=strong": (3, "augment=strong"),
        "data.batch_size=256": (3, "data.batch_size=256"),
        "data.batch_size=1024": (4, "data.batch_size=1024"),
        "compile=true": (4, "compile=true"),
        "data.image_size=192": (2, "data.image_size=192"),
    }
    for number, (title, (epochs, *changed)) in enumerate(rows.items()):
        run = train(
            setup, f"settings_{number}", *base, *map(str, changed), f"trainer.max_epochs={epochs}", _memory(setup)
        )
        record(f"small, {title}", run.metrics["images_per_second"], "images/s", command=run.command)
        _record_memory(setup, record, f"small, {title}")


def face(setup: Setup, record: Recorder) -> None:
    """Train `face_probe`, its five teachers and `face`, with the upper and with all layers, three seeds."""
    heads = train(setup, "face_probe", "experiment=face_probe", "trainer=mixed")
    _record_scores(record, "face_probe", heads)
    _teachers(setup)
    for seed in range(1 if setup.faces else 3):
        for layers in ("all", "upper"):
            run = train(
                setup,
                f"face_{layers}_{seed}",
                "experiment=face",
                "trainer=mixed",
                f"model.trainable={layers}",
                f"weights={heads.folder}",
                f"teacher={setup.out / 'teachers'}",
                *FACE_TEACHERS,
                f"seed={seed}",
            )
            _record_scores(record, f"face, trainable={layers}, seed {seed}", run)


def small(setup: Setup, record: Recorder) -> None:
    """Train `small` with the teachers at full length, three seeds."""
    _teachers(setup)
    for seed in range(1 if setup.faces else 3):
        teacher = f"teacher={setup.out / 'teachers'}"
        run = train(setup, f"small_{seed}", "experiment=small", "trainer=mixed", teacher, f"seed={seed}")
        _record_scores(record, f"small with teachers, seed {seed}", run)


def earlier(setup: Setup, record: Recorder) -> None:
    """Train the five earlier systems for 30 epochs, in which their validation should stop falling."""
    for name, (metric, published) in EARLIER.items():
        epochs = 1 if setup.faces else EPOCHS
        run = train(setup, f"earlier_{name}", f"experiment={name}", "trainer=mixed", f"trainer.max_epochs={epochs}")
        record(f"{name}: {metric}", run.metrics[metric], goal=published, command=run.command)
        record(f"{name}: best of {epochs} epochs", run.metrics["best_epoch"])
        _record_scores(record, name, run)


def predicting(setup: Setup, record: Recorder) -> None:
    """Predict a folder of faces on the device and on the CPU."""
    run = train(setup, "predicting", "experiment=small", "trainer.max_epochs=1", "report=false")
    folder = setup.data or _test_faces(run)[0].parent
    for device in dict.fromkeys((setup.device, "cpu")):
        out = setup.out / f"predicting_{device}.csv"
        start = time.perf_counter()
        predict(setup, out, f"img={folder}", f"weights={run.folder}", f"device={device}", "detect=never")
        seconds, images = time.perf_counter() - start, len(_rows(out))
        title = f"predict.py device={device}, a folder of {images:,} crops, start included"
        record(title, round(images / seconds, 1), "images/s")


def _teachers(setup: Setup) -> None:
    """Train five heads, each without a fifth of the training faces, unless they are there."""
    for part in range(5):
        name = f"teachers/{part}"
        if not (setup.out / "runs" / name / "metrics.json").exists():
            train(setup, name, "experiment=face_probe", "trainer=mixed", f"data.leave_out={part}/5", *QUICK)
    link = setup.out / "teachers"
    if not link.exists():
        link.symlink_to(setup.out / "runs" / "teachers", target_is_directory=True)


def _record_scores(record: Recorder, title: str, run: Run) -> None:
    for metric in ("val/age_mae", "test/age_mae", "test/age_cs5", "test/gender_acc"):
        record(f"{title}: {metric}", round(run.metrics[metric], 4), command=run.command)
    record(f"{title}: training", run.metrics["train_seconds"], "s", command=run.command)


def _memory(setup: Setup) -> str:
    """Return the override that adds the memory probe."""
    return f"+callbacks.memory={{_target_: benchmarks.gpu.probes.MemoryProbe, path: {setup.out / 'memory.json'}}}"


def _record_memory(setup: Setup, record: Recorder, title: str) -> None:
    if setup.device == "cuda":
        peak = json.loads((setup.out / "memory.json").read_text(encoding="utf-8"))["peak"]
        record(f"{title}: peak GPU memory", round(peak / 2**30, 2), "GiB")


def _test_faces(run: Run) -> list[Path]:
    return [Path(row["path"]) for row in _rows(run.folder / "predictions.csv")][:100]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
