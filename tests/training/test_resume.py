"""`resume=` ends in the bits of an uninterrupted run and refuses other settings."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

import copy
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Outcome, metrics_of
from helpers.composed import RefusalOf, refusal_of
from helpers.stopped_runs import (
    FOUR,
    CrashError,
    assert_same_run,
    crash,
    differences,
    press_ctrl_c,
    stop_at,
    uninterrupted,
)
from omegaconf import OmegaConf

from agegender.errors import EXIT_USAGE
from agegender.training.callbacks.checkpoint import RelocatableCheckpoint
from agegender.training.module import AgeGenderModule

Run = Callable[..., Outcome]
COSINE = "_target_: agegender.training.optim.WarmupCosine"


@pytest.fixture
def finished(trained_run: Path, tmp_path: Path) -> Path:
    """A finished run of two epochs, to be continued: a copy, so a moved run."""
    return shutil.copytree(trained_run, tmp_path / "run")


@pytest.fixture
def extended(run_here: Run, trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that was moved and continued by an epoch; made once. Read only."""
    folder = tmp_path_factory.getbasetemp() / "extended"
    if not folder.exists():
        shutil.copytree(trained_run, folder)
        outcome = run_here("train.py", f"resume={folder}", "trainer.max_epochs=3")
        assert outcome.code == 0, outcome.err
    return folder


def test_resume_after_a_crash_ends_with_the_same_bits_in_the_same_folder(
    run_here: Run, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 2, 0, crash)
        with pytest.raises(CrashError):
            run_here("train.py", *FOUR, "hydra.run.dir=crashed", "name=mine")
    assert torch.load(tmp_path / "crashed/checkpoints/last.ckpt", weights_only=True)["epoch"] == 1
    steps: list[tuple[int, int]] = []
    begin = AgeGenderModule.on_train_batch_start

    def count(self: AgeGenderModule, faces: Any, batch_idx: int) -> None:
        steps.append((self.current_epoch, batch_idx))
        begin(self, faces, batch_idx)

    monkeypatch.setattr(AgeGenderModule, "on_train_batch_start", count)
    outcome = run_here("train.py", "resume=crashed")  # the overrides of the run are kept
    assert outcome.code == 0, outcome.err
    assert steps[0] == (2, 0) and steps[-1][0] == 3 and len(steps) == 2 * 6  # no step is repeated
    assert_same_run(tmp_path / "crashed", uninterrupted)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("epoch", "batch"),
    [pytest.param(0, 0, marks=pytest.mark.slow), (1, 2), pytest.param(3, 4, marks=pytest.mark.slow)],
)
def test_ctrl_c_in_an_epoch_ends_in_one_line_and_resumes_to_the_same_bits(
    run_here: Run, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int, batch: int
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, epoch, batch, press_ctrl_c)
        outcome = run_here("train.py", *FOUR, "hydra.run.dir=stopped")
    assert outcome.code == 130
    assert outcome.err.startswith(f"interrupted in epoch {epoch + 1} after {batch + 1} of 6 batches; continue with: ")
    assert outcome.err.endswith("stopped\n") and "python train.py resume=" in outcome.err
    assert outcome.err.count("\n") == 1
    last = torch.load(tmp_path / "stopped/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == epoch * 6 + batch + 1  # the current step was finished
    assert not (tmp_path / "stopped/metrics.json").exists()
    outcome = run_here("train.py", "resume=stopped")
    assert outcome.code == 0, outcome.err
    assert_same_run(tmp_path / "stopped", uninterrupted)


@pytest.mark.slow
def test_ctrl_c_in_the_last_step_of_an_epoch_lets_it_validate_first(
    run_here: Run, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 5, press_ctrl_c)
        outcome = run_here("train.py", *FOUR, "hydra.run.dir=stopped")
    assert outcome.code == 130 and "in epoch 3 after 1 of 6 batches" in outcome.err
    assert run_here("train.py", "resume=stopped").code == 0
    assert_same_run(tmp_path / "stopped", uninterrupted)


@pytest.mark.slow
def test_ctrl_c_in_the_last_step_of_a_run_ends_it_there(
    run_here: Run, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 3, 5, press_ctrl_c)
        outcome = run_here("train.py", *FOUR, "hydra.run.dir=stopped")
    assert outcome.code == 130 and "after the last epoch" in outcome.err and outcome.err.count("\n") == 1
    assert run_here("train.py", "resume=stopped").code == 0  # nothing left to train: only the test
    assert_same_run(tmp_path / "stopped", uninterrupted)


def test_resume_of_a_finished_and_moved_run_ends_as_one_of_that_length(
    run_here: Run, extended: Path, tmp_path: Path
) -> None:
    assert run_here("train.py", *TINY, "trainer.max_epochs=3", "hydra.run.dir=whole").code == 0
    assert_same_run(extended, tmp_path / "whole")
    assert metrics_of(extended)["best_score"] == metrics_of(tmp_path / "whole")["best_score"]


def test_resume_refuses_a_missing_run_in_one_line(run_here: Run, tmp_path: Path) -> None:
    outcome = run_here("train.py", *TINY, "resume=logs/nowhere")
    outcome.assert_one_line_error("error: logs/nowhere does not exist")
    assert not any(tmp_path.iterdir())


def test_weights_start_a_new_run_with_a_new_optimizer(
    run_here: Run, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before: dict[str, Any] = {}
    states: list[int] = []

    def keep(self: AgeGenderModule) -> None:
        before.update(copy.deepcopy(self.network.state_dict()))
        states.append(len(self.trainer.optimizers[0].state))

    monkeypatch.setattr(AgeGenderModule, "on_train_start", keep)
    start = ("optim.lr=5e-4", f"weights={trained_run}", "test=false")
    outcome = run_here("train.py", *TINY, *start, "hydra.run.dir=tuned")
    assert outcome.code == 0, outcome.err
    best = torch.load(trained_run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert before and differences(best, {f"network.{name}": value for name, value in before.items()}) == []
    assert states == [0]
    last = torch.load(tmp_path / "tuned/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 12  # counted from zero


@pytest.mark.slow
@pytest.mark.parametrize("size", ["data.image_size=32", "data.image_size=128"])
def test_evaluation_reproduces_the_metrics_of_the_run(
    run_here: Run, trained_run: Path, tmp_path: Path, size: str
) -> None:
    data = [setting for setting in TINY if setting.startswith(("data", "trainer=")) and "image_size" not in setting]
    outcome = run_here("train.py", *data, size, "fit=false", f"weights={trained_run}", "hydra.run.dir=again")
    assert outcome.code == 0, outcome.err
    again, first = metrics_of(tmp_path / "again"), metrics_of(trained_run)
    figures = [key for key in first if key.startswith(("val/", "test/", "baseline/"))]
    assert len(figures) > 12 and {key: again[key] for key in figures} == {key: first[key] for key in figures}
    assert again["best_score"] == first["best_score"] and again["epochs"] == 0
    assert (tmp_path / "again/predictions.csv").read_bytes() == (trained_run / "predictions.csv").read_bytes()
    assert "too optimistic" not in outcome.out + outcome.err
    assert not (tmp_path / "again/checkpoints").exists()


def test_evaluation_warns_of_weights_of_another_split(run_here: Run, trained_run: Path) -> None:
    outcome = run_here("train.py", *TINY, "data.split_seed=5", "fit=false", f"weights={trained_run}")
    assert outcome.code == 0
    fingerprint = metrics_of(trained_run)["split_fingerprint"]
    assert f"trained under split {fingerprint}" in outcome.out and "too optimistic" in outcome.out


def test_weights_of_another_network_are_refused_with_the_difference(run_here: Run, trained_run: Path) -> None:
    outcome = run_here("train.py", *TINY, "model.trunk.channels=[8,32]", f"weights={trained_run}")
    outcome.assert_one_line_error("don't fit this network (trunk.channels: [8, 16] there, [8, 32] here)")


def test_resumed_run_records_its_new_overrides(extended: Path) -> None:
    results = metrics_of(extended)
    assert results["epochs"] == 3 and "trainer.max_epochs=3" in results["overrides"]


def test_relocatable_checkpoint_keeps_its_best_in_another_folder(tmp_path: Path) -> None:
    old, new = (
        RelocatableCheckpoint(dirpath=tmp_path / name, filename="best", monitor="val/age_mae")
        for name in ("old", "new")
    )
    path = str(tmp_path / "old" / "best.ckpt")
    old.best_model_path = old.kth_best_model_path = path
    old.best_model_score = old.kth_value = torch.tensor(4.5)
    old.best_k_models = {path: torch.tensor(4.5)}
    new.load_state_dict(old.state_dict())
    moved = str(tmp_path / "new" / "best.ckpt")
    assert new.best_model_score == new.kth_value == 4.5
    assert new.best_model_path == new.kth_best_model_path == moved
    assert new.best_k_models == {moved: torch.tensor(4.5)}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.dropout=1.5", "model.dropout=1.5 must be at least 0 and below 1"),
        ("model.trunk.conv_dropout=-1", "model.trunk.conv_dropout=-1 must be at least 0"),
        ("model.trunk.channels=[0]", "model.trunk.channels=[0] must be one positive number per stage"),
        ("model.trunk.channels=[]", "model.trunk.channels=[] must be one positive number per stage"),
        ("model.trunk.kernel_size=0", "model.trunk.kernel_size=0 must be positive"),
        ("model.head_units=[0]", "model.head_units=[0] must be positive"),
        ("model.std=[0]", "model.std=[0] must be above zero"),
        ("tasks.age.scale=0", "tasks.age.scale=0 must be above zero"),
        ("augment.scale=[0,1]", "augment.scale=[0, 1] must be two factors above zero"),
        ("seed=-1", "seed=-1 has the wrong type"),
        ("monitor=val/age_maee", "monitor=val/age_maee is not known; did you mean val/age_mae?"),
        ("tasks.age.weight=-1", "tasks.age.weight=-1 must be at least 0"),
        ("optim.trunk_lr_mult=-1", "optim.trunk_lr_mult=-1 has the wrong type"),
        ("callbacks.image_logger.faces=0", "callbacks.image_logger.faces=0 must be at least 1"),
        ("fit=false", "choose it with weights="),
        ("+trainer.fast_dev_run=true", "trainer=debug is as quick"),
        ("+trainer.limit_val_batches=0", "so no validation chooses the best checkpoint"),
        ("callbacks.checkpoint=null", "keep callbacks.checkpoint"),
        ("trainer.devices=3", "data.batch_size=16 is split over 3 devices at every step: set a multiple of 3"),
        ("trainer.devices=0", "trainer.devices=0 is no device"),
        ("trainer.precision=bf16-true", "would compute ages in that precision"),
        (
            "optim.scheduler={warmup_fraction: 0.1}",
            "optim.scheduler={'warmup_fraction': 0.1} has no _target_: name the class to build",
        ),
        (
            f"optim.scheduler={{{COSINE}, warmup_fraction: 2}}",
            "optim.scheduler.warmup_fraction=2 must be a fraction between 0 and 1",
        ),
        (f"optim.scheduler={{{COSINE}, interval: day}}", "optim.scheduler.interval='day' has the wrong type"),
        (f"optim.scheduler={{{COSINE}, monitor: val/loss}}", "optim.scheduler.monitor is for ReduceLROnPlateau"),
        ("optim.scheduler={_target_: torch.optim.lr_scheduler.StepLR}", "optim.scheduler.step_size is missing"),
        ("~model", "model is missing: choose one of conf/model"),
    ],
)
def test_train_refuses_meaningless_values_in_one_line(
    refusal_of: RefusalOf, tmp_path: Path, setting: str, message: str
) -> None:
    others = [item for item in TINY if setting != "~model" or "model." not in item]
    assert message in refusal_of(*others, "augment=light", setting)
    assert not list(tmp_path.glob("logs/*/csv"))  # no epoch was logged


def test_group_that_is_null_is_refused_in_one_line(run_here: Run) -> None:
    outcome = run_here("train.py", *TINY, "logger=null")
    outcome.assert_one_line_error("a config group can't be null; remove it with ~logger", code=EXIT_USAGE)


@pytest.mark.parametrize("nothing", [("~logger",), ("~augment", "callbacks.early_stopping=null")], ids=" ".join)
def test_train_accepts_omitted_optional_groups(run_here: Run, nothing: tuple[str, ...], tmp_path: Path) -> None:
    outcome = run_here("train.py", *TINY, *nothing, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert metrics_of(tmp_path / "run")["epochs"] == 1


def test_scheduler_without_a_length_is_refused(refusal_of: RefusalOf) -> None:
    line = refusal_of(*TINY, "optim=adamw", "trainer.max_epochs=-1")
    assert line == "optim.scheduler requires the length of the training: set trainer.max_epochs"


def test_clipping_in_mixed_precision_is_refused_with_a_fused_optimizer_only(
    run_here: Run, refusal_of: RefusalOf
) -> None:
    asked = (*TINY, "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1", "trainer.max_epochs=1")
    assert "optim.optimizer.fused=false" in refusal_of(*asked)
    assert run_here("train.py", *asked, "optim.optimizer.fused=false", "test=false").code == 0


def test_refused_settings_leave_no_run_folder(run_here: Run, tmp_path: Path) -> None:
    assert run_here("train.py", *TINY, "seed=-1").code == 1
    assert not list(tmp_path.glob("logs/*/*"))


@pytest.mark.filterwarnings("ignore:You requested to overfit")  # Lightning warns that it disables shuffling
def test_overfit_batches_of_lightning_runs(run_here: Run) -> None:
    outcome = run_here("train.py", *TINY, "+trainer.overfit_batches=1", "trainer.max_epochs=1", "test=false")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ("optim=adamw", "AdamW"),
        ("data.split_seed=3", "the images' split was "),
        (
            "seed=7 optim.lr=5e-4 tasks.age.weight=2 model.dropout=0.1 trainer.precision=bf16-mixed data.batch_size=8",
            "data.batch_size was 16 and is 8; model.dropout was 0.4 and is 0.1; optim.lr was 0.001 and is 0.0005; "
            "seed was 0 and is 7; tasks.age.weight was 1.0 and is 2; trainer.precision was 32-true and is bf16-mixed. "
            "Restore it, or start a new run from its weights with weights=",
        ),
        ("data.limit=90", "data.limit was None and is 90"),
        ("+augment.flip=0.5", "augment.flip was 0.0 and is 0.5"),
        ("fit=false", "use weights= instead of resume="),
        ("weights=run", "leave out weights=, or resume="),
    ],
)
def test_resume_refuses_what_changes_the_run_and_touches_no_file(
    run_here: Run, finished: Path, changed: str, named: str
) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    outcome = run_here("train.py", "resume=run", "trainer.max_epochs=3", *changed.split())
    outcome.assert_one_line_error(named)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_weights_of_another_age_task_are_refused(run_here: Run, trained_run: Path) -> None:
    outcome = run_here("train.py", *TINY, f"weights={trained_run}", "tasks.age.scale=10")
    assert outcome.code == 1
    assert "(tasks.age.scale: 20.0 there, 10 here)" in outcome.err


def test_resume_completes_the_settings_of_an_older_version(run_here: Run, finished: Path) -> None:
    config = OmegaConf.load(finished / ".hydra/config.yaml")
    del config.model.feature_dropout, config.tasks.age.output, config.tasks.gender.output, config.data.split
    del config.loss.learned, config.optim.trunk_lr_mult
    OmegaConf.save(config, finished / ".hydra/config.yaml")

    asked = ("train.py", "resume=run", "trainer.max_epochs=3", "test=false")
    changed = run_here(*asked, "model.feature_dropout=0.3")
    assert changed.code == 1 and "model.feature_dropout was 0.0 and is 0.3" in changed.err
    outcome = run_here(*asked)
    assert outcome.code == 0, outcome.err
    assert metrics_of(finished)["epochs"] == 3


def test_images_per_second_counts_trained_images_only(run_here: Run, tmp_path: Path) -> None:
    asked = (*TINY, "+trainer.limit_train_batches=1", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert run_here("train.py", *asked).code == 0
    figures = metrics_of(tmp_path / "run")
    assert figures["images_per_second"] >= 16 / figures["seconds_per_epoch"] * 0.99
    assert figures["images_per_second"] * figures["seconds_per_epoch"] < 86 * 5  # far below the rate of the whole split
