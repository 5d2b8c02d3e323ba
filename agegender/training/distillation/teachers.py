"""Knowledge distillation: training on teachers' predictions beside the labels.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", NIPS Deep Learning Workshop 2015; their
temperature is 1 here, since an age's distribution over years is soft already.

Each teacher predicts once per face, averaging over the image and its mirror image, while the student sees augmented
images. This is the cheap variant ("fixed teacher") of Beyer et al., "Knowledge distillation: A good teacher is patient
and consistent", CVPR 2022. They find it better to show both the same augmented view, but that costs a pass of every
teacher at every step, and teachers are often larger than the student. Here, if each face was held out by one teacher,
the total cost is two passes per face.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agegender.data import decode
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index.split import left_out
from agegender.errors import require
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.runs.checkpoint import BUNDLED_WEIGHTS, best_checkpoints, find_checkpoint, load_checkpoint
from agegender.runs.hub_model import is_hub_address
from agegender.system.checksums import is_intact
from agegender.system.files import atomic_write, exclusive_lock, raise_cache_errors
from agegender.system.progress import track
from agegender.tasks.task import build_tasks
from agegender.training.distillation.soft_targets import SoftTargets

log = logging.getLogger(__name__)

VERSION = 3  # of the procedure that computes the soft targets: part of the cache's key
_BATCH = 16  # faces: the activations of more exceed a CPU's caches

TeacherPredictions = dict[str, NDArray[np.float32]]  # task -> distributions [faces, k]


class Teacher(NamedTuple):
    """A teacher's checkpoint.

    Attributes:
        path: Path of the file.
        digest: SHA-256 of the file.
        split: The split that it was trained on, see `AgeGenderModule`; empty if unknown.
    """

    path: Path
    digest: str
    split: dict[str, Any]


def find_teachers(given: str | Sequence[str] | None, tasks: Mapping[str, Mapping[str, Any]]) -> list[Teacher]:
    """Find the teachers' checkpoints and check that they are compatible with the student; reads no images.

    Args:
        given: The setting `teacher`: run folders, checkpoints, or folders of runs (such as a sweep's), meaning all of
            them.
        tasks: The student's tasks.

    Raises:
        AgeGenderError: There is no checkpoint, or teacher and student don't predict the same distributions.
    """
    if given is None:
        return []
    paths = [path for each in ([given] if isinstance(given, str) else given) for path in _checkpoints(each)]
    ours = _distributions(tasks)
    for task in build_tasks(tasks).values():
        task.soft_target(torch.zeros(1, task.num_outputs))  # raises if there is none
    teachers = []
    for path in paths:
        saved = load_checkpoint(path)["agegender"]
        theirs = _distributions(saved["network"]["tasks"])
        for name, own in ours.items():
            require(name in theirs, f"teacher={path} has no task {name}: choose another teacher, or add ~tasks.{name}")
            differ = f"teacher={path} predicts tasks.{name} by {theirs[name]}, this network by {own}: make them equal"
            require(theirs[name] == own, differ)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        teachers.append(Teacher(path, digest, saved["split"] or {}))
    return teachers


def _distributions(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return a description of each task's outputs, which is equal where their distributions can be compared."""
    return {
        name: f"{type(task).__name__} of width {task.num_outputs}"
        + f" ({', '.join(task.classes)})" * bool(task.classes)
        for name, task in build_tasks(tasks).items()
    }


def _checkpoints(given: str) -> list[Path]:
    folder = Path(given)
    known = given in BUNDLED_WEIGHTS or is_hub_address(given) or folder.exists()
    require(known, f"teacher={given} does not exist; set a run's folder or a checkpoint")
    if given not in BUNDLED_WEIGHTS and not is_hub_address(given) and not (folder / "checkpoints").is_dir():
        runs = sorted(best_checkpoints(folder))
        if runs:
            return runs
    return [find_checkpoint(given)]


def make_targets(
    teachers: Sequence[Teacher], data: AgeGenderDataModule, settings: Mapping[str, Any]
) -> SoftTargets | None:
    """Compute the mean of the teachers' predictions for every training face.

    A teacher's predictions are biased to the labels of the faces that it was trained on. The mean for a face is
    therefore over the teachers that held it out of their training (`data.leave_out`), if any, else over all.

    Args:
        teachers: See `find_teachers`.
        data: Data that is set up; its `trainer` determines the device.
        settings: The config, of which `loss.teacher` and `tasks` are used.

    Returns:
        The soft targets; None if there are no teachers, or their weight is zero.
    """
    share, tasks = settings["loss"]["teacher"], [name for name, node in settings["tasks"].items() if node is not None]
    if not teachers or share == 0:
        return None
    faces = data.split("train")
    chosen = np.stack([_fresh(teacher, data) for teacher in teachers])
    held_out = chosen.any(0)
    chosen[:, ~held_out] = True
    weights = (chosen / chosen.sum(0)).astype(np.float32)
    targets: dict[str, NDArray[np.float32]] = {}
    for teacher, used, weight in zip(teachers, chosen, weights, strict=True):
        if used.any():
            for name, theirs in _answers(teacher, data, faces.rows[used], tasks).items():
                mean = targets.setdefault(name, np.zeros((len(faces), theirs.shape[1]), np.float32))
                mean[used] += weight[used, None] * theirs
    log.info(
        "soft targets of %d teacher(s) for %s training faces, %s of them from teachers that held the face out",
        len(teachers),
        f"{len(faces):,}",
        f"{held_out.sum():,}",
    )
    return SoftTargets(faces.rows, targets, [teacher.digest for teacher in teachers], share)


def _fresh(teacher: Teacher, data: AgeGenderDataModule) -> NDArray[np.bool_]:
    """Return a mask `[faces]` of the training faces that the teacher held out of its training."""
    faces, split = data.split("train"), teacher.split
    index = data.index
    if split.get("fingerprint") != index.fingerprint:
        log.warning(
            "teacher %s was trained under split %s, this is split %s: if the images are the same, it was trained on "
            "some of these test images and the metrics are too optimistic",
            teacher.path,
            split.get("fingerprint", "unknown"),
            index.fingerprint,
        )
    same = all(split.get(name) == data.split_settings[name] for name in ("duplicates", "age_range"))
    if not split.get("leave_out") or not same or split["fingerprint"] != index.fingerprint:
        return np.zeros(len(faces), dtype=np.bool_)
    return left_out(index.digests, index.duplicates, split["split_seed"], split["leave_out"])[faces.rows]


def _answers(
    teacher: Teacher, data: AgeGenderDataModule, rows: NDArray[np.int64], tasks: Sequence[str]
) -> TeacherPredictions:
    """Return a teacher's predictions for rows of the index, from the cache if they are there."""
    digests = "".join(data.index.digests[row] for row in rows.tolist())
    recipe = f"{VERSION}:{decode.VERSION}:{teacher.digest}:{_precision(data)}:{','.join(tasks)}:{digests}"
    path = data.cache_dir / "teachers" / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.npz"
    waiting = f"another run computes the same teacher's predictions: waiting for {path}"
    with raise_cache_errors("the soft targets", path, 250 * len(rows)), exclusive_lock(path, waiting):
        if is_intact(path, "the teacher's predictions are computed again"):
            with np.load(path, allow_pickle=False) as saved:
                predictions = {name: saved[name] for name in tasks}
        else:
            log.info("computing predictions of teacher %s for %s faces, once: %s", teacher.path, f"{len(rows):,}", path)
            predictions = _ask(teacher, data, rows, tasks)
            with atomic_write(path, checksum=True) as file:
                np.savez(file, **predictions)  # type: ignore[arg-type]  # mypy can't tell arrays from keywords
    return predictions


def _precision(data: AgeGenderDataModule) -> str | None:
    """Return the training's precision, in which the teachers predict too."""
    return str(data.trainer.precision) if data.trainer else None


def _ask(
    teacher: Teacher, data: AgeGenderDataModule, rows: NDArray[np.int64], tasks: Sequence[str]
) -> TeacherPredictions:
    """Compute a teacher's predictions, the mean over a face and its mirror image, at its own size and color mode."""
    device = data.device
    precision = data.trainer.precision_plugin.forward_context() if data.trainer else nullcontext()
    found: dict[str, list[torch.Tensor]] = {name: [] for name in tasks}
    # Building a network draws random weights, which must not advance the run's generator.
    with torch.random.fork_rng([]), torch.inference_mode(), precision:
        network = TorchBackend(teacher.path, str(device)).network
        pixels = data.open_pixels(network.image_size, network.in_channels == 1)
        batches = np.split(rows, range(_BATCH, len(rows), _BATCH))
        for batch in track(batches, f"teacher {teacher.path}", len(batches)):
            images = torch.from_numpy(pixels.read(batch)).permute(0, 3, 1, 2).to(device)
            views = [network(view) for view in (images, images.flip(3))]
            for name in tasks:
                soft = [network.tasks[name].soft_target(raw[name].float()) for raw in views]  # type: ignore[operator]
                mean = torch.stack(soft).mean(0).cpu()
                found[name].append(mean if mean.shape[1] == 1 else mean.half())
    # outside autocast, which rejects float16 on a CPU
    return {name: torch.cat(soft).numpy() for name, soft in found.items()}
