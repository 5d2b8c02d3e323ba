"""The EMA weights are the same in validation, checkpoints, resume, test and predict.py."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Outcome, metrics_of
from helpers.stopped_runs import differences

from agegender.errors import AgeGenderError
from agegender.training.callbacks.ema import EMA, ema_with_warmup
from agegender.training.module import AgeGenderModule

Run = Callable[..., Outcome]
SMALL = [setting for setting in TINY if not setting.startswith("model.")]
WITH_EMA = (
    *SMALL,
    *("model=residual", "model.trunk.stem=4", "model.trunk.channels=[4,8]", "model.trunk.blocks=[1,1]", "age=dldl"),
    *("callbacks=ema", "callbacks.ema.decay=0.9", "callbacks.early_stopping=null", "optim=adamw"),
)


def checkpoint(run: Path, name: str = "best") -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return state


def test_ema_warms_up_its_decay() -> None:
    move = ema_with_warmup(0.9)
    zero, one = torch.zeros(3), torch.ones(3)
    shares = [move(zero, one, torch.tensor(step))[0].item() for step in (1, 8, 1000)]
    assert shares == pytest.approx([1 - 2 / 11, 0.5, 0.1])


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_ema_refuses_an_invalid_decay(decay: float) -> None:
    with pytest.raises(AgeGenderError, match=r"callbacks.ema.decay="):
        EMA(decay)


@pytest.fixture
def averaged(run_here: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with EMA; trained once. Read only."""
    folder = tmp_path_factory.getbasetemp() / "ema"
    if not folder.exists():
        outcome = run_here("train.py", *WITH_EMA, f"hydra.run.dir={folder}")
        assert outcome.code == 0, outcome.err
    return folder


def test_ema_weights_are_validated_saved_tested_and_evaluated(averaged: Path, run_here: Run, tmp_path: Path) -> None:
    state, figures = checkpoint(averaged), metrics_of(averaged)
    own = state["current_model_state"]
    assert any(differences(state["state_dict"], own, ""))
    # the score is from the training, the metrics from the checkpoint: the same weights
    assert figures["val/age_mae"] == pytest.approx(figures["best_score"], abs=1e-4)
    again = run_here("train.py", *WITH_EMA, "fit=false", f"weights={averaged}", "hydra.run.dir=again")
    assert again.code == 0, again.err
    measured = metrics_of(tmp_path / "again")
    for name in ("val/age_mae", "test/age_mae", "test/gender_acc", "test/loss"):
        assert measured[name] == pytest.approx(figures[name], abs=1e-6), name


def test_ema_checkpoint_holds_the_calibration_of_its_own_validation(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[dict[str, Any]] = []
    fit = AgeGenderModule._fit_calibration

    def record(self: AgeGenderModule) -> None:
        fit(self)
        fitted.append({name: task.get_extra_state() for name, task in self.network.each_task()})

    monkeypatch.setattr(AgeGenderModule, "_fit_calibration", record)
    outcome = run_here("train.py", *WITH_EMA, "test=false", "hydra.run.dir=run")
    assert outcome.code == 0, outcome.err
    assert len(fitted) == 2 and fitted[0] != fitted[1]
    for name in ("best", "last"):
        state = checkpoint(tmp_path / "run", name)
        held = {task: state["state_dict"][f"network.tasks.{task}._extra_state"] for task in ("age", "gender")}
        assert held == fitted[state["epoch"]], name


def test_predict_uses_the_ema_weights(averaged: Path, run_here: Run, tmp_path: Path) -> None:
    rows = (averaged / "predictions.csv").read_text().splitlines()[1:]
    path, _, age = rows[0].split(",")[:3]
    outcome = run_here("predict.py", "detect=never", f"img={path}", f"weights={averaged}", "out=face.csv")
    assert outcome.code == 0, outcome.err
    (answer,) = csv.DictReader((tmp_path / "face.csv").read_text().splitlines())
    assert float(answer["age"]) == pytest.approx(float(age), abs=0.02)


@pytest.mark.slow
def test_resume_restores_the_ema_and_the_trained_weights(run_here: Run, tmp_path: Path) -> None:
    steps = (*WITH_EMA, "optim.scheduler=null")
    assert run_here("train.py", *steps, "trainer.max_epochs=3", "hydra.run.dir=whole").code == 0
    assert run_here("train.py", *steps, "trainer.max_epochs=2", "hydra.run.dir=halves").code == 0
    resumed = run_here("train.py", *steps, "trainer.max_epochs=3", "resume=halves")
    assert resumed.code == 0, resumed.err
    whole, halves = (checkpoint(tmp_path / name, "last") for name in ("whole", "halves"))
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert whole[key].keys() == halves[key].keys()
        assert differences(whole[key], halves[key], key) == []
    first, second = (metrics_of(tmp_path / name) for name in ("whole", "halves"))
    assert first["test/age_mae"] == second["test/age_mae"]
