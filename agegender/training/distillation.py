"""Knowledge distillation: a network learns what its teachers answer for the training faces, beside the labels.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", NIPS Deep Learning Workshop 2015; their
temperature is 1 here, since an age's distribution over years is soft already.

Each teacher answers once per face, for the picture as it is and for its mirror image, while the student sees the
pictures augmented. This is the cheap variant ("fixed teacher") of Beyer et al., "Knowledge distillation: A good teacher
is patient and consistent", CVPR 2022. They find it better to show both the same augmented view; that costs a pass of
every teacher at every step, and these are often larger than the student. Here the cost is two passes per face in all,
where each face was left out by one teacher.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agegender.checkpoint import BUNDLED_WEIGHTS, find_checkpoint, load_checkpoint
from agegender.data import decode
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.split import left_out
from agegender.errors import require
from agegender.files import caching, one_at_a_time, write_whole
from agegender.models.age_distribution import LabelDistribution
from agegender.prediction.torch_network import TorchNetwork
from agegender.progress import track
from agegender.targets import build
from agegender.training.soft_targets import SoftTargets

log = logging.getLogger(__name__)

VERSION = 2  # of how answers are made: part of the cache's key
_BATCH = 16  # faces: more outgrow a CPU's caches

Answers = tuple[NDArray[np.float16], NDArray[np.float32]]  # of a teacher: [faces, years], and p_female [faces]


class Teacher(NamedTuple):
    """A checkpoint that teaches.

    Attributes:
        path: Where it is.
        digest: SHA-256 of its bytes.
        split: What it was trained on, see `AgeGenderModule`; empty if it doesn't say.
        years: The length of its age distributions.
    """

    path: Path
    digest: str
    split: dict[str, Any]
    years: int


def find_teachers(given: str | Sequence[str] | None, age: Mapping[str, Any]) -> list[Teacher]:
    """Finds the teachers' checkpoints, and sees that a student can learn from them; no picture is read.

    Args:
        given: `teacher`: run folders, checkpoints, or folders directly below which runs lie (a sweep's), meaning all.
        age: The student's age coding.

    Raises:
        AgeGenderError: There is no checkpoint, or the two don't answer with distributions over the same years.
    """
    if given is None:
        return []
    paths = [path for each in ([given] if isinstance(given, str) else given) for path in _checkpoints(each)]
    years = _years(age)
    require(years is not None, f"teacher= teaches distributions over years, not {_name(age)}: set age=dldl")
    teachers = []
    for path in paths:
        told = load_checkpoint(path)["agegender"]
        theirs, name = _years(told["network"]["age"]), _name(told["network"]["age"])
        require(theirs is not None, f"teacher={path} was trained with {name}: give one that has age=dldl")
        top = (theirs or 1) - 1
        fits = theirs == years
        require(fits, f"teacher={path} answers with {theirs} years, this network with {years}: set age.top={top}")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        teachers.append(Teacher(path, digest, told["split"] or {}, theirs or 0))
    return teachers


def _years(age: Mapping[str, Any]) -> int | None:
    coding = build(age, "age")
    return coding.outputs if isinstance(coding, LabelDistribution) else None


def _name(age: Mapping[str, Any]) -> str:
    return str(age["_target_"]).rpartition(".")[2]


def _checkpoints(given: str) -> list[Path]:
    folder = Path(given)
    known = given in BUNDLED_WEIGHTS or folder.exists()
    require(known, f"teacher={given} does not exist; give a run's folder or a checkpoint")
    if given not in BUNDLED_WEIGHTS and not (folder / "checkpoints").is_dir():
        runs = sorted(folder.glob("*/checkpoints/best.ckpt"))
        if runs:
            return runs
    return [find_checkpoint(given)]


def make_targets(teachers: Sequence[Teacher], data: AgeGenderDataModule, loss: Mapping[str, Any]) -> SoftTargets | None:
    """Has the teachers answer for every training face, and takes the mean.

    A teacher knows the labels of the faces that it was trained on, and leans to them. So a face is taught by those
    teachers that left it out of their training (`data.leave_out`), if there are any, else by all.

    Args:
        teachers: See `find_teachers`.
        data: Set up; its `trainer` says which device answers.
        loss: The settings of `loss`.

    Returns:
        None if there are no teachers, or their weight is zero.
    """
    if not teachers or loss["teacher"] == 0:
        return None
    faces = data.split("train")
    chosen = np.stack([_fresh(teacher, data) for teacher in teachers])
    fresh = chosen.any(0)
    chosen[:, ~fresh] = True
    shares = (chosen / chosen.sum(0)).astype(np.float32)
    ages, p_female = np.zeros((len(faces), teachers[0].years), np.float32), np.zeros(len(faces), np.float32)
    for teacher, taught, share in zip(teachers, chosen, shares, strict=True):
        if taught.any():
            their_ages, theirs = _answers(teacher, data, faces.rows[taught])
            ages[taught] += share[taught, None] * their_ages
            p_female[taught] += share[taught] * theirs
    log.info(
        "soft targets of %d teacher(s) for %s training faces, %s of them from teachers that left the face out",
        len(teachers),
        f"{len(faces):,}",
        f"{fresh.sum():,}",
    )
    return SoftTargets(faces.rows, ages, p_female, [teacher.digest for teacher in teachers], loss["teacher"])


def _fresh(teacher: Teacher, data: AgeGenderDataModule) -> NDArray[np.bool_]:
    """Returns which of the training faces `[faces]` the teacher left out of its training."""
    faces, split = data.split("train"), teacher.split
    index = data.index
    if split.get("fingerprint") != index.fingerprint:
        log.warning(
            "teacher %s was trained under split %s, this is split %s: if the pictures are the same, it has seen some "
            "of these test pictures and the figures are flattered",
            teacher.path,
            split.get("fingerprint", "unknown"),
            index.fingerprint,
        )
    same = all(split.get(name) == data.split_settings[name] for name in ("duplicates", "age_range"))
    if not split.get("leave_out") or not same or split["fingerprint"] != index.fingerprint:
        return np.zeros(len(faces), dtype=np.bool_)
    return left_out(index.digests, index.duplicates, split["split_seed"], split["leave_out"])[faces.rows]


def _answers(teacher: Teacher, data: AgeGenderDataModule, rows: NDArray[np.int64]) -> Answers:
    """Returns a teacher's answers for faces given by their rows of the index, from the cache if they are there."""
    digests = "".join(data.index.digests[row] for row in rows.tolist())
    recipe = f"{VERSION}:{decode.VERSION}:{teacher.digest}:{_precision(data)}:{digests}"
    path = data.cache_dir / "teachers" / f"{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.npz"
    waiting = f"another run asks the same teacher: waiting for {path}"
    with caching("the soft targets", path, 250 * len(rows)), one_at_a_time(path, waiting):
        answers = _read(path, len(rows))
        if answers is None:
            log.info("teacher %s answers for %s faces, once: %s", teacher.path, f"{len(rows):,}", path)
            answers = _ask(teacher, data, rows)
            with write_whole(path) as file:
                np.savez(file, ages=answers[0], p_female=answers[1])
    return answers


def _read(path: Path, faces: int) -> Answers | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            ages, p_female = saved["ages"], saved["p_female"]
        if len(ages) == len(p_female) == faces:
            return ages, p_female
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile):
        pass
    log.warning("%s is damaged: the teacher answers again", path)
    return None


def _precision(data: AgeGenderDataModule) -> str | None:
    """Returns the training's precision, which the teachers answer in too."""
    return str(data.trainer.precision) if data.trainer else None


def _ask(teacher: Teacher, data: AgeGenderDataModule, rows: NDArray[np.int64]) -> Answers:
    """Has a teacher answer: the mean over a face and its mirror image, in the format of its own pictures."""
    device = data.device
    precision = data.trainer.precision_plugin.forward_context() if data.trainer else nullcontext()
    ages, genders = [], []
    # A network draws its first weights: not from the run's stream of random numbers.
    with torch.random.fork_rng([]), torch.inference_mode(), precision:
        network = TorchNetwork(teacher.path, str(device)).network
        pixels = data.open_pixels(network.image_size, network.in_channels == 1)
        batches = np.split(rows, range(_BATCH, len(rows), _BATCH))
        for batch in track(batches, f"teacher {teacher.path}", len(batches)):
            images = torch.from_numpy(pixels.read(batch)).permute(0, 3, 1, 2).to(device)
            views = [network(view) for view in (images, images.flip(3))]
            ages.append(torch.stack([outputs.age.float().softmax(1) for outputs in views]).mean(0).half().cpu())
            genders.append(torch.stack([network.p_female(outputs) for outputs in views]).mean(0).float().cpu())
    return torch.cat(ages).numpy(), torch.cat(genders).numpy()  # not under autocast: it refuses float16 on a CPU
