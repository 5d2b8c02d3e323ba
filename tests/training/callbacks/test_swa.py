"""SWA: the mean of the last epochs' weights is validated, saved, tested and resumed, with batch norm computed anew."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Outcome, metrics_of
from helpers.composed import RefusalOf, refusal_of
from helpers.stopped_runs import CrashError, crash, differences, stop_at

from agegender.data.datamodule import AgeGenderDataModule
from agegender.errors import AgeGenderError
from agegender.models.network import MultiTaskNet
from agegender.training.callbacks.swa import SWA

Run = Callable[..., Outcome]
SMALL = [setting for setting in TINY if not setting.startswith("model.")]
WITH_SWA = (
    *SMALL,
    *("model=residual", "model.trunk.stem=4", "model.trunk.channels=[4,8]", "model.trunk.blocks=[1,1]"),
    *("model.feature_dropout=0", "optim=adamw", "optim.scheduler.final_lr_ratio=0.5", "trainer.max_epochs=4"),
    *("callbacks=swa", "callbacks.swa.start=0.5", "callbacks.early_stopping=null"),
)
EACH_EPOCH = (
    'callbacks.last_checkpoint.filename="last-{epoch}"',
    "+callbacks.last_checkpoint.save_top_k=-1",
    "+callbacks.last_checkpoint.auto_insert_metric_name=false",
)


@pytest.fixture
def averaged(run_here: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four epochs, the last two of which count, with each epoch's checkpoint; trained once."""
    folder = tmp_path_factory.getbasetemp() / "swa"
    if not folder.exists():
        outcome = run_here("train.py", *WITH_SWA, *EACH_EPOCH, f"hydra.run.dir={folder}")
        assert outcome.code == 0, outcome.err
    return folder


def checkpoint(run: Path, name: str) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return state


def weights_of(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Returns the parameters of a state, without batch norm's statistics and the calibrations."""
    others = ("running_mean", "running_var", "num_batches_tracked", "_extra_state")
    return {name: value for name, value in state.items() if not name.endswith(others)}


def test_swa_average_is_the_mean_of_the_epochs_that_count(averaged: Path) -> None:
    states = [checkpoint(averaged, f"last-{epoch}") for epoch in (1, 2, 3, 4)]
    own = [weights_of(state["current_model_state"]) for state in states]
    for epoch in (0, 1, 2):  # before the average, and its first epoch
        assert differences(weights_of(states[epoch]["state_dict"]), own[epoch]) == []
    for name, value in weights_of(states[3]["state_dict"]).items():
        torch.testing.assert_close(value, (own[2][name] + own[3][name]) / 2, msg=name)
    assert any(differences(weights_of(states[3]["state_dict"]), own[3]))


def test_swa_computes_batch_norm_for_the_averaged_weights(averaged: Path) -> None:
    state = checkpoint(averaged, "last-4")
    network = MultiTaskNet(**state["agegender"]["network"])
    saved = {key.removeprefix("network."): value for key, value in state["state_dict"].items() if "network." in key}
    network.load_state_dict(saved)
    data = AgeGenderDataModule(synthetic={"count": 120, "size": 64}, image_size=32, batch_size=16)
    data.prepare_data()
    data.setup()
    faces = data.split("train")
    batches = [faces.__getitems__(items)["image"] for items in torch.arange(len(faces)).tensor_split(len(faces) // 32)]
    torch.optim.swa_utils.update_bn(batches, network)
    statistics = {key: value for key, value in network.state_dict().items() if "running_" in key}
    assert statistics
    for name, value in statistics.items():
        torch.testing.assert_close(value, saved[name], rtol=1e-4, atol=1e-5, msg=name)
        assert not torch.allclose(value, state["current_model_state"][f"network.{name}"], rtol=1e-3), name


def test_swa_weights_are_validated_saved_tested_and_evaluated(averaged: Path, run_here: Run, tmp_path: Path) -> None:
    figures = metrics_of(averaged)
    # the score is from the training, the metrics from the checkpoint: the same weights
    assert figures["val/age_mae"] == pytest.approx(figures["best_score"], abs=1e-4)
    last = averaged / "checkpoints" / "last-4.ckpt"
    again = run_here("train.py", *WITH_SWA, "fit=false", f"weights={last}", "hydra.run.dir=again", "test=false")
    assert again.code == 0, again.err
    epochs = (averaged / "csv" / "metrics.csv").read_text()
    measured = metrics_of(tmp_path / "again")["val/age_mae"]
    assert f"{measured:.3f}" in {
        f"{float(cell):.3f}" for row in epochs.splitlines()[1:] for cell in row.split(",") if cell
    }


@pytest.mark.slow
def test_swa_resumes_after_a_crash_to_the_same_bits(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (*WITH_SWA, "augment=light", "test=false")
    assert run_here("train.py", *asked, "hydra.run.dir=whole").code == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 3, 2, crash)
        with pytest.raises(CrashError):
            run_here("train.py", *asked, "hydra.run.dir=crashed")
    outcome = run_here("train.py", "resume=crashed")
    assert outcome.code == 0, outcome.err
    whole, crashed = (checkpoint(tmp_path / name, "last") for name in ("whole", "crashed"))
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert differences(whole[key], crashed[key], key) == []
    assert metrics_of(tmp_path / "whole")["val/age_mae"] == metrics_of(tmp_path / "crashed")["val/age_mae"]


@pytest.mark.parametrize(("name", "value"), [("start", 1.0), ("start", -0.1), ("batch_norm_faces", 0)])
def test_swa_refuses_invalid_settings(name: str, value: Any) -> None:
    with pytest.raises(AgeGenderError, match=rf"callbacks.swa.{name}={value} must be"):
        SWA(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("callbacks=swa", "trainer.max_epochs=-1", "+trainer.max_steps=20"), "callbacks=swa averages the last of"),
        (
            ("callbacks=swa", "callbacks.ema={_target_: agegender.training.callbacks.ema.EMA}"),
            "set one of them to null",
        ),
    ],
)
def test_swa_is_refused_where_it_can_not_work(refusal_of: RefusalOf, settings: tuple[str, ...], message: str) -> None:
    assert message in refusal_of(*TINY, *settings)
