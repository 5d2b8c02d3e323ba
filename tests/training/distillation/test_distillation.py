"""Distillation: soft targets of teachers are computed once, cached, and looked up by row."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, Outcome, run_in
from helpers.composed import RefusalOf, refusal_of
from helpers.made_networks import save_network
from helpers.made_tables import half_labeled, rows_of, write_table
from helpers.nodes import task_nodes, trunk_node
from helpers.stopped_runs import CrashError, assert_same_run, crash, differences, stop_at
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from agegender.data.datamodule import AgeGenderDataModule
from agegender.errors import AgeGenderError
from agegender.models.network import MultiTaskNet
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.runs.checkpoint import load_checkpoint
from agegender.training.distillation import teachers
from agegender.training.distillation.soft_targets import SoftTargets
from agegender.training.distillation.teachers import find_teachers, make_targets
from agegender.training.module import AgeGenderModule

Run = Callable[..., Outcome]
DLDL = task_nodes("dldl")
STUDENT = (*TINY, "age=dldl", "optim=adamw", "augment=light")
SHORT = ("trainer.max_epochs=1", "test=false", "callbacks.image_logger=null")
TABLE = tuple(setting for setting in STUDENT if not setting.startswith(("data=", "data.synthetic")))
TRUNK = trunk_node(channels=[4])
NETWORK = {"image_size": 16, "in_channels": 1, "tasks": DLDL, "trunk": TRUNK, "head_units": [8], "dropout": 0.0}
OPTIM = {"optimizer": {"_target_": "torch.optim.Adam", "lr": 3e-3}, "scheduler": None}


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep folder of two runs on drawn faces, each trained without one half of the training split."""
    where = tmp_path_factory.mktemp("folds")
    sweep = ("-m", *STUDENT, *SHORT, "data.leave_out=0/2,1/2", "hydra.sweep.dir=sweep")
    run_in(where, "train.py", *sweep)
    return where / "sweep"


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """An untrained color network of 32 pixels whose predictions vary between faces."""
    return save_network(tmp_path / "teacher.ckpt")


def drawn(cache_dir: Path | None = None, **options: Any) -> AgeGenderDataModule:
    """Returns the data module of `STUDENT`, set up."""
    settings = {"synthetic": {"count": 120, "size": 64}, "image_size": 32, "batch_size": 16, **options}
    module = AgeGenderDataModule(cache_dir=str(cache_dir) if cache_dir else None, **settings)
    module.setup()
    return module


def targets_of(
    *teachers: Path, data: AgeGenderDataModule, tasks: dict[str, Any] = DLDL
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the soft targets of the training faces, in the order of `data.split("train").rows`."""
    settings = {"loss": {"teacher": 0.7}, "tasks": tasks}
    made = make_targets(find_teachers([str(path) for path in teachers], tasks), data, settings)
    assert made is not None
    found = made.lookup(torch.from_numpy(data.split("train").rows))
    return found["age"].numpy(), found["gender"][:, 0].numpy()


def network_predictions(path: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a checkpoint's predictions for images `[n, channels, size, size]` and their mirror images."""
    checkpoint = load_checkpoint(path)
    network = MultiTaskNet(**checkpoint["agegender"]["network"])
    network.load_state_dict(checkpoint["network"])
    with torch.no_grad():
        views = [network.eval()(view) for view in (images, images.flip(-1))]
        ages = torch.stack([functional.softmax(view["age"], 1) for view in views])
        return ages, torch.stack([network.predict(view)["p_female"] for view in views])


@pytest.mark.parametrize("cache", ["auto", "none"])
def test_soft_target_is_the_teacher_mean_over_a_face_and_its_mirror_image(teacher: Path, cache: str) -> None:
    student = drawn(image_size=48, grayscale=True, cache=cache)
    faces = drawn(image_size=32, grayscale=False, cache="none").split("train")  # as the teacher's input
    assert len(faces) > 64  # more than one batch
    ages, p_female = network_predictions(teacher, faces.__getitems__(range(len(faces)))["image"])
    assert not torch.allclose(ages[0], ages[1], atol=1e-3)  # the teacher is not flip-invariant
    found = targets_of(teacher, data=student)
    np.testing.assert_allclose(found[0], ages.mean(0), atol=2e-4, rtol=2e-3)
    np.testing.assert_allclose(found[1], p_female.mean(0), atol=1e-5)
    np.testing.assert_allclose(found[0].sum(1), 1, atol=1e-6)


def test_soft_target_is_the_mean_over_teachers(tmp_path: Path, teacher: Path) -> None:
    other = save_network(tmp_path / "other.ckpt", trunk="residual", in_channels=3)
    data = drawn()
    one, two, both = (targets_of(*paths, data=data) for paths in ([teacher], [other], [teacher, other]))
    assert np.abs(one[0] - two[0]).max() > 0.01
    for mean, first, second in zip(both, one, two, strict=True):
        np.testing.assert_allclose(mean, (first + second) / 2, atol=2e-4)


def count_loaded_teachers(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Returns a list that receives the path of every teacher that is loaded."""
    asked: list[Path] = []
    network = TorchBackend

    def count(path: Path, device: str) -> TorchBackend:
        asked.append(path)
        return network(path, device)

    monkeypatch.setattr(teachers, "TorchBackend", count)
    return asked


def test_soft_targets_are_cached_by_teacher_and_faces(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_loaded_teachers(monkeypatch)
    first = targets_of(teacher, data=drawn(tmp_path / "cache"))
    moved = Path(shutil.copy(teacher, tmp_path / "moved.ckpt"))
    again = targets_of(moved, data=drawn(tmp_path / "cache", image_size=16))
    assert asked == [teacher]
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    targets_of(teacher, data=drawn(tmp_path / "cache", split_seed=1))  # other training faces
    assert asked == [teacher, teacher]
    other = save_network(teacher, head_units=[8])  # another network under the same name
    targets_of(other, data=drawn(tmp_path / "cache"))
    assert len(asked) == 3


@pytest.mark.parametrize("damage", ["cut off", "other bytes", "other faces", "no archive", "an array less"])
def test_damaged_soft_targets_are_computed_again_with_a_warning(
    tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    data = drawn(tmp_path / "cache")
    first = targets_of(teacher, data=data)
    (path,) = (tmp_path / "cache/teachers").glob("*.npz")
    kept = path.read_bytes()
    if damage == "cut off":
        path.write_bytes(kept[: len(kept) // 2])
    elif damage == "other bytes":
        path.write_bytes(kept[:900] + bytes(8) + kept[908:])
    elif damage == "no archive":
        path.write_bytes(b"answers")
    else:
        ages, genders = first[0].astype(np.float16), first[1][:, None]
        np.savez(path, **({"age": ages} if damage == "an array less" else {"age": ages[1:], "gender": genders}))
    asked = count_loaded_teachers(monkeypatch)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        again = targets_of(teacher, data=data)
    assert asked == [teacher]
    assert [record.getMessage() for record in caplog.records if "is damaged" in record.getMessage()] == [
        f"{path} is damaged (its checksum doesn't match): the teacher's predictions are computed again"
    ]
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert path.read_bytes() == kept


def test_soft_target_uses_the_teachers_that_held_the_face_out(folds: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = drawn()
    rows = data.split("train").rows
    seen = [set(drawn(leave_out=f"{part}/2").split("train").rows.tolist()) for part in (0, 1)]
    each = [targets_of(folds / str(part), data=data) for part in (0, 1)]  # a single teacher is used for every face
    assert np.abs(each[0][0] - each[1][0]).max() > 1e-3
    with caplog.at_level(logging.INFO):
        both = targets_of(folds, data=data)
    for place, row in enumerate(rows.tolist()):
        (left_out_by,) = (part for part in (0, 1) if row not in seen[part])
        np.testing.assert_allclose(both[0][place], each[left_out_by][0][place], atol=2e-4)
        assert both[1][place] == each[left_out_by][1][place]
    message = "soft targets of {} teacher(s) for {} training faces, {} of them from teachers that held the face out"
    assert message.format(2, len(rows), len(rows)) in caplog.messages


def test_soft_target_uses_all_teachers_when_none_held_the_face_out(
    folds: Path, teacher: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = drawn()
    rows = data.split("train").rows
    seen = set(drawn(leave_out="0/2").split("train").rows.tolist())
    fold, other = targets_of(folds / "0", data=data), targets_of(teacher, data=data)
    with caplog.at_level(logging.INFO):
        both = targets_of(folds / "0", teacher, data=data)
    for place, row in enumerate(rows.tolist()):
        wanted = (fold[0][place] + other[0][place]) / 2 if row in seen else fold[0][place]
        np.testing.assert_allclose(both[0][place], wanted, atol=2e-4)
    assert f"{len(rows) - len(seen)} of them from teachers that held the face out" in caplog.messages[-1]


def test_teacher_of_another_split_holds_no_face_out_and_warns(folds: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = drawn(split_seed=1)
    with caplog.at_level(logging.INFO):
        targets_of(folds, data=data)
    assert "0 of them from teachers that held the face out" in caplog.messages[-1]
    warnings = [text for text in caplog.messages if "was trained under split" in text]
    assert len(warnings) == 2 and all(f"this is split {data.index.fingerprint}" in text for text in warnings)


def test_find_teachers_accepts_runs_folders_of_runs_and_checkpoints(folds: Path, teacher: Path) -> None:
    best = [folds / part / "checkpoints/best.ckpt" for part in ("0", "1")]
    assert [each.path for each in find_teachers(str(folds), DLDL)] == best
    assert [each.path for each in find_teachers([str(folds / "1"), str(teacher)], DLDL)] == [best[1], teacher]
    assert find_teachers(None, task_nodes("mae")) == []


def soft_targets(weight: float, count: int = 12) -> tuple[SoftTargets, Tensor, Tensor]:
    """Returns random targets for rows 10, 11, ..., with their age distributions and p_female."""
    generator = torch.Generator().manual_seed(5)
    ages = torch.rand(count, 121, generator=generator).softmax(1).half()
    p_female = torch.rand(count, generator=generator)
    made = SoftTargets(10 + np.arange(count), {"age": ages.numpy(), "gender": p_female[:, None].numpy()}, ["a"], weight)
    wanted = ages.float()
    return made, wanted / wanted.sum(1, keepdim=True), p_female


def some_batch(count: int = 12) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    return {
        "image": torch.randint(0, 256, (count, 1, 16, 16), dtype=torch.uint8, generator=generator),
        "labels": {
            "age": torch.randint(1, 100, (count,), generator=generator).float(),
            "gender": (torch.arange(count) % 2).float(),
        },
        "row": 10 + torch.randperm(count, generator=generator),
    }


def training_step_of(module: AgeGenderModule, batch: Any) -> tuple[float, dict[str, float]]:
    torch.manual_seed(0)
    loss = module.training_step(batch, 0).item()
    figures = {name: value.item() for name, value in module.train_metrics.compute().items()}
    return loss, figures


def expected_losses(
    module: AgeGenderModule, batch: dict[str, Any], ages: Tensor, p_female: Tensor
) -> tuple[float, float]:
    """Returns the KL divergence and the cross-entropy, computed from their definitions."""
    with torch.no_grad():
        outputs = module.network(batch["image"])
    place = batch["row"] - 10
    wanted, p = ages[place], p_female[place]
    answered = functional.softmax(outputs["age"], 1)
    divergence = (wanted * (wanted / answered).log()).sum(1).mean()
    raw = outputs["gender"][:, 0]
    q = raw if module.network.tasks["gender"].output == "sigmoid" else raw.sigmoid()
    return divergence.item(), -(p * q.log() + (1 - p) * (1 - q).log()).mean().item()


@pytest.mark.parametrize("gender_output", ["logit", "sigmoid"])
@pytest.mark.parametrize("weight", [0.25, 1.0])
@pytest.mark.parametrize("learned", [False, True])
def test_distillation_loss_equals_the_hand_computed_mixture(weight: float, learned: bool, gender_output: str) -> None:
    tasks = task_nodes("dldl", weight=2.0, gender={"weight": 0.5, "output": gender_output})
    module = AgeGenderModule(NETWORK | {"tasks": tasks}, OPTIM, {"learned": learned})
    batch = some_batch()
    plain, labels = training_step_of(module, batch)
    module.soft_targets, ages, p_female = soft_targets(weight)
    age_loss, gender_loss = expected_losses(module, batch, ages, p_female)
    returned, figures = training_step_of(module, batch)
    wanted = (1 - weight) * plain + weight * (2 * age_loss + 0.5 * gender_loss)
    assert returned == pytest.approx(wanted, rel=1e-5) == figures["train/loss"] != pytest.approx(plain)
    for name in ("train/age_loss", "train/gender_loss", "train/age_mae"):  # measured on the labels alone
        assert figures[name] == labels[name]


def test_distillation_loss_covers_faces_without_labels() -> None:
    module = AgeGenderModule(NETWORK, OPTIM, {"learned": True})
    batch = some_batch()
    batch["labels"] = {name: torch.full_like(values, torch.nan) for name, values in batch["labels"].items()}
    module.soft_targets, ages, p_female = soft_targets(0.7)
    returned = module.training_step(batch, 0)  # type: ignore[arg-type]
    assert returned.item() == pytest.approx(0.7 * sum(expected_losses(module, batch, ages, p_female)), rel=1e-5)
    returned.backward()  # type: ignore[no-untyped-call]
    assert module.balance.log_variance is not None and module.balance.log_variance.grad is not None
    assert (module.balance.log_variance.grad != 0).all()  # both tasks have a target


def test_soft_targets_raise_for_a_row_outside_the_training_split() -> None:
    made, _, _ = soft_targets(0.7)
    for row in (0, 9, 22):
        with pytest.raises(IndexError):
            made.lookup(torch.tensor([row]))


def test_soft_targets_are_not_saved_in_the_checkpoint(folds: Path, run_here: Run, tmp_path: Path) -> None:
    outcome = run_here("train.py", *STUDENT, *SHORT, f"teacher={folds}", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    taught, alone = (load_checkpoint(run / "checkpoints/last.ckpt") for run in (tmp_path / "run", folds / "0"))
    assert set(taught["state_dict"]) == set(alone["state_dict"])
    assert taught["hyper_parameters"]["loss"] == alone["hyper_parameters"]["loss"]
    digests = sorted(teacher.digest for teacher in find_teachers(str(folds), DLDL))
    assert taught["agegender"]["teachers"] == digests and "teachers" not in alone["agegender"]
    assert (tmp_path / "run/checkpoints/last.ckpt").stat().st_size < 1.1 * (
        folds / "0/checkpoints/last.ckpt"
    ).stat().st_size


def distance(run: Path, teacher: Path, data: AgeGenderDataModule) -> tuple[float, float]:
    """Returns the mean KL divergence (nats) and the mean error of p_female between a run and its teacher."""
    faces = data.split("train")
    ages, p_female = network_predictions(run / "checkpoints/last.ckpt", faces.__getitems__(range(len(faces)))["image"])
    wanted, theirs = targets_of(teacher, data=data)
    divergence = functional.kl_div(ages[0].log(), torch.from_numpy(wanted), reduction="batchmean")
    return divergence.item(), (p_female[0] - torch.from_numpy(theirs)).abs().mean().item()


@pytest.mark.slow
def test_student_of_soft_targets_alone_approaches_its_teacher(run_here: Run, teacher: Path, tmp_path: Path) -> None:
    taught = ("data.grayscale=false", "optim.lr=1e-2", "trainer.max_epochs=12", "augment=none", "model.dropout=0")
    for name, more in (("labels", ()), ("soft", (f"teacher={teacher}", "loss.teacher=1"))):
        outcome = run_here("train.py", *STUDENT, *taught, *more, f"hydra.run.dir={name}")
        assert outcome.code == 0, outcome.err
    data = drawn(grayscale=False)
    (far, wrong), (near, little) = (distance(tmp_path / name, teacher, data) for name in ("labels", "soft"))
    assert near < far / 4 and near < 0.2
    assert little < wrong / 2


@pytest.mark.slow
def test_teacher_weight_of_one_ignores_the_labels(run_here: Run, teacher: Path, faces: Path, tmp_path: Path) -> None:
    weights = []
    for name, rows in (("whole", rows_of(faces)), ("half", half_labeled(faces))):
        write_table(tmp_path / f"{name}.csv", rows)
        table = ("data=table", f"data.table={name}.csv", f"data.dir={faces}", f"hydra.run.dir={name}")
        outcome = run_here("train.py", *TABLE, *table, f"teacher={teacher}", "loss.teacher=1")
        assert outcome.code == 0, outcome.err
        state = load_checkpoint(tmp_path / name / "checkpoints/last.ckpt")["network"]
        weights.append({key: value for key, value in state.items() if not key.endswith("_extra_state")})  # calibrations
    assert differences(weights[0], weights[1]) == []


def test_teacher_weight_of_zero_trains_the_bits_of_no_teacher(run_here: Run, teacher: Path, tmp_path: Path) -> None:
    for name, more in (("alone", ()), ("zero", (f"teacher={teacher}", "loss.teacher=0"))):
        assert run_here("train.py", *STUDENT, *SHORT, *more, f"hydra.run.dir={name}").code == 0
    weights = [load_checkpoint(tmp_path / name / "checkpoints/last.ckpt")["network"] for name in ("alone", "zero")]
    assert differences(*weights) == []


@pytest.mark.slow
def test_student_trains_to_the_same_bits_with_any_cache_and_on_device(
    run_here: Run, folds: Path, tmp_path: Path
) -> None:
    taught = (*STUDENT, f"teacher={folds}")
    for name, more in (("cold", ["data.cache_dir=cold"]), ("warm", []), ("device", ["data.on_device=true"])):
        outcome = run_here("train.py", *taught, *more, f"hydra.run.dir={name}")
        assert outcome.code == 0, outcome.err
    weights = [load_checkpoint(tmp_path / name / "checkpoints/last.ckpt")["network"] for name in ("cold", "warm")]
    assert differences(*weights) == []
    placed = load_checkpoint(tmp_path / "device/checkpoints/last.ckpt")["network"]
    assert differences(weights[0], placed) == []


@pytest.mark.slow
def test_distillation_resumes_after_a_crash_to_the_same_bits(
    run_here: Run, folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = (*STUDENT, "trainer.max_epochs=3", f"teacher=[{folds}/0,{folds}/1]", "callbacks=ema", "augment.mixup=0.4")
    assert run_here("train.py", *taught, "hydra.run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 2, crash)
        with pytest.raises(CrashError):
            run_here("train.py", *taught, "hydra.run.dir=crashed")
    outcome = run_here("train.py", "resume=crashed")
    assert outcome.code == 0, outcome.err
    assert_same_run(tmp_path / "crashed", tmp_path / "whole")


@pytest.mark.slow
def test_resume_refuses_other_teachers(run_here: Run, folds: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(folds / "0", tmp_path / "mine")
    assert run_here("train.py", *STUDENT, f"teacher={mine}", "hydra.run.dir=run").code == 0
    for change, message in (
        (f"teacher={folds}", f"teacher was {mine} and is {folds}"),
        ("teacher=null", f"teacher was {mine} and is None"),
        ("loss.teacher=0.5", "loss.teacher was 0.7 and is 0.5"),
    ):
        outcome = run_here("train.py", "resume=run", "trainer.max_epochs=3", change)
        outcome.assert_one_line_error("error: resume=run continues a run unchanged, but ", message)
    shutil.copy(folds / "1/checkpoints/best.ckpt", mine / "checkpoints/best.ckpt")
    outcome = run_here("train.py", "resume=run", "trainer.max_epochs=3")
    assert outcome.code == 1 and "a teacher's checkpoint was another file" in outcome.err
    shutil.copy(folds / "0/checkpoints/best.ckpt", mine / "checkpoints/best.ckpt")
    outcome = run_here("train.py", "resume=run", "trainer.max_epochs=3")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["teacher=nowhere"], "teacher=nowhere does not exist; set a run's folder or a checkpoint"),
        (["teacher=[]"], "teacher= is empty: "),
        (["teacher=empty"], "empty has no best checkpoint; "),
        (
            ["teacher=mae.ckpt"],
            "teacher=mae.ckpt predicts tasks.age by Regression of width 1, this network by ",
        ),
        (
            ["teacher=dldl.ckpt", "tasks.age.max_age=100"],
            "teacher=dldl.ckpt predicts tasks.age by LabelDistribution of width 121, this ",
        ),
        (
            ["teacher=dldl.ckpt", "age=mae"],
            "teacher= requires distributions, and tasks.age predicts none: set age=dldl",
        ),
        (
            ["teacher=dldl.ckpt", "age=classes"],
            "teacher=dldl.ckpt predicts tasks.age by LabelDistribution of width 121, this ",
        ),
        (
            ["teacher=dldl.ckpt", "tasks.gender.classes=[female,male]"],
            "teacher=dldl.ckpt predicts tasks.gender by Binary of width 1 (male, female), this network by Binary of ",
        ),
        (
            ["teacher=dldl.ckpt", "tasks=age_gender_ethnicity"],
            "teacher=dldl.ckpt has no task ethnicity: choose another",
        ),
        (["teacher=dldl.ckpt", "fit=false", "weights=dldl.ckpt"], "teacher= requires a training: "),
        (["teacher=dldl.ckpt", "loss.teacher=1.5"], "loss.teacher=1.5 must lie between 0 (labels only) and 1 "),
        (["loss.teacher=-0.1"], "loss.teacher=-0.1 must lie between 0 (labels only) and 1 "),
        (["loss.teacher=much"], "loss.teacher='much' has the wrong type: "),
        (["teacher=3"], "teacher=3 does not exist"),
    ],
)
def test_invalid_teacher_is_refused_before_data_is_read(
    refusal_of: RefusalOf, tmp_path: Path, settings: list[str], message: str
) -> None:
    save_network(tmp_path / "dldl.ckpt")
    save_network(tmp_path / "mae.ckpt", age={"name": "mae"})
    (tmp_path / "empty").mkdir()
    assert refusal_of(*STUDENT, *settings, "data.cache_dir=cache").startswith(message)
    assert not (tmp_path / "cache").exists() and not list((tmp_path / "logs").iterdir())


@pytest.mark.parametrize("part", ["5/5", "0/1", "half", "1/-2", "-1/5", "1/5/5"])
def test_leave_out_refuses_an_invalid_fold_in_one_line(refusal_of: RefusalOf, tmp_path: Path, part: str) -> None:
    line = refusal_of(*STUDENT, f"data.leave_out={part}", "data.cache_dir=cache")
    assert line.startswith(f"data.leave_out={part} must be i/n, ")
    assert not (tmp_path / "cache").exists()


def test_streaming_data_refuses_teacher_and_leave_out(run_here: Run, refusal_of: RefusalOf) -> None:
    line = refusal_of("data=streaming", "data.dir=shards", "age=dldl", "teacher=default")
    assert line.startswith("teacher= requires random access to the faces: ")
    outcome = run_here("train.py", "data=streaming", "data.dir=shards", "data.leave_out=0/5")
    assert outcome.code == 2 and outcome.err.startswith("error: data.leave_out is not known; ")


@pytest.mark.slow
def test_multirun_over_teachers_trains_one_run_each(run_here: Run, folds: Path, tmp_path: Path) -> None:
    outcome = run_here(
        *("train.py", "-m", *STUDENT, f"teacher={folds}/0,[{folds}/0,{folds}/1]", "hydra.sweep.dir=students"),
    )
    assert outcome.code == 0, outcome.err
    taught = [
        load_checkpoint(tmp_path / f"students/{job}/checkpoints/best.ckpt")["agegender"]["teachers"] for job in (0, 1)
    ]
    assert [len(digests) for digests in taught] == [1, 2] and set(taught[0]) < set(taught[1])


def test_unwritable_soft_target_cache_is_refused_in_one_line(tmp_path: Path, teacher: Path) -> None:
    data = drawn(tmp_path / "cache")
    (tmp_path / "cache/teachers").write_text("in the way")
    with pytest.raises(AgeGenderError, match=r"can't write the soft targets .*data\.cache_dir="):
        targets_of(teacher, data=data)


def test_soft_targets_are_finite_for_every_face(teacher: Path) -> None:
    ages, p_female = targets_of(teacher, data=drawn())
    assert np.isfinite(ages).all() and (ages >= 0).all()
    assert ((p_female > 0) & (p_female < 1)).all() and math.isfinite(float(p_female.sum()))
