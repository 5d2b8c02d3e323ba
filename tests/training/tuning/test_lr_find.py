"""The learning-rate finder: its suggestion, the rates of parameter groups, and what a run of it leaves."""

# ruff: noqa: F401, F811
# An imported fixture is also the name of an argument.

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from conftest import TINY, Outcome
from helpers.composed import RefusalOf, refusal_of

from agegender.errors import AgeGenderError
from agegender.training.tuning.lr_find import HIGHEST, LOWEST, RATES, STEPS, LearningRateTest, smoothed, suggest

Run = Callable[..., Outcome]


def test_smoothed_loss_is_the_hand_computed_moving_average() -> None:
    assert smoothed([4.0, 2.0]) == pytest.approx([4.0, (0.9 * 0.4 + 0.1 * 2.0) / 0.19])
    assert smoothed([3.0] * 5) == pytest.approx([3.0] * 5)


def test_suggested_rate_is_a_tenth_of_that_with_the_lowest_loss() -> None:
    lowest = 80
    losses = [1 - step / 200 if step <= lowest else 0.6 + (step - lowest) for step in range(STEPS)]
    assert suggest(losses) == pytest.approx(RATES[lowest] / 10)
    assert suggest([*losses[: lowest + 3], math.nan]) == pytest.approx(RATES[lowest] / 10)


@pytest.mark.parametrize("losses", [[], [1.0] * 5, [1.0 + step for step in range(60)]])
def test_suggestion_is_none_if_the_loss_does_not_fall(losses: list[float]) -> None:
    assert suggest(losses) is None


class Quadratic(pl.LightningModule):
    """Minimizes the square of two weights, whose groups' rates have the ratio 1 to 4."""

    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(torch.ones(1)) for _ in range(2)])
        self.lr, self.rates = lr, []  # type: ignore[var-annotated]

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.weights[0].square().sum() + self.weights[1].square().sum()
        return loss

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        self.rates.append([group["lr"] for group in optimizer.param_groups])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = [{"params": self.weights[0]}, {"params": self.weights[1], "lr": self.lr / 4}]
        return torch.optim.SGD(groups, lr=self.lr)


def fit(module: pl.LightningModule, test: LearningRateTest, accumulate: int = 1) -> None:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=STEPS, callbacks=[test], accumulate_grad_batches=accumulate, **quiet
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.zeros(50, 1)))  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_groups_keep_their_ratio_and_each_step_has_its_rate(accumulate: int) -> None:
    module, test = Quadratic(), LearningRateTest()
    fit(module, test, accumulate)
    rates = np.array(module.rates)
    assert len(rates) == len(test.losses) == STEPS
    np.testing.assert_allclose(rates[:, 0], np.geomspace(LOWEST, HIGHEST, STEPS))
    np.testing.assert_allclose(rates[:, 1], rates[:, 0] / 4)
    assert test.losses[0] == pytest.approx(2.0)  # not divided by the number of accumulated batches


def test_lr_find_needs_a_rate() -> None:
    with pytest.raises(AgeGenderError, match=r"above 0: set optim\.lr"):
        fit(Quadratic(0.0), LearningRateTest())


def test_lr_find_ends_in_one_line_and_a_plot_and_leaves_no_run(run_here: Run, tmp_path: Path) -> None:
    settings = (*TINY, "optim=adamw", "optim.trunk_lr_mult=0.5", "optim.lr=0.2", "callbacks=ema")
    outcome = run_here("train.py", *settings, "lr_find=true", "name=found")
    assert outcome.code == 0, outcome.err
    line = outcome.out.splitlines()[-1]
    told = re.fullmatch(
        r"suggested learning rate (\d\.\de-\d); plot: (\S+/lr_find.png); now: (.*) optim.lr=(\S+)", line
    )
    assert told and told[1] == told[4] and "optim.lr" not in told[3] and "lr_find" not in told[3]
    assert "callbacks=ema" in told[3] and told[3].startswith("python train.py data=synthetic")
    (folder,) = (tmp_path / "logs" / "found").iterdir()
    assert (tmp_path / told[2]).parent == folder and [path.name for path in folder.iterdir()] == ["lr_find.png"]
    assert (tmp_path / told[2]).read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("lr_find=true", "batch_size_find=true"), "choose one"),
        (("lr_find=true", "fit=false", "weights=default"), "lr_find=true tests the first steps of a training"),
        (("lr_find=perhaps",), "lr_find='perhaps' has the wrong type"),
    ],
)
def test_finders_are_refused_in_one_line(refusal_of: RefusalOf, settings: tuple[str, ...], message: str) -> None:
    assert message in refusal_of(*TINY, *settings)


def test_finder_in_a_multirun_is_refused_in_one_line(run_here: Run) -> None:
    outcome = run_here("train.py", *TINY, "hydra.mode=MULTIRUN", "lr_find=true", "seed=0,1")
    assert outcome.code == 1 and "lr_find=true is for one run: leave out -m" in outcome.err.splitlines()[-1]
