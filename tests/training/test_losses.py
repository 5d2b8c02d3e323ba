"""The weighted sum of the two losses."""

from __future__ import annotations

import pytest
import torch

from agegender.errors import AgeGenderError
from agegender.training.losses import MultiTaskLoss


def test_fixed_loss_weights_are_those_given() -> None:
    loss = MultiTaskLoss(age=2.0, gender=0.5)(torch.tensor(3.0), torch.tensor(4.0))
    assert loss.item() == 8.0
    assert not list(MultiTaskLoss().parameters())


def test_learned_loss_weights_start_at_the_fixed_ones() -> None:
    losses = torch.tensor(3.0), torch.tensor(4.0)
    assert MultiTaskLoss(2.0, 0.5, learned=True)(*losses).item() == MultiTaskLoss(2.0, 0.5)(*losses).item()


def test_learned_loss_weights_converge_to_one_half_per_task() -> None:
    # d/ds (L exp(-s) + s / 2) = 0 at exp(s) = 2 L: each weighted loss converges to one half
    balance = MultiTaskLoss(learned=True)
    optimizer = torch.optim.Adam(balance.parameters(), lr=0.05)
    for _ in range(1500):
        loss = balance(torch.tensor(30.0), torch.tensor(0.2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert balance.log_variance is not None
    assert balance.log_variance.exp().tolist() == pytest.approx([60.0, 0.4], rel=0.02)


@pytest.mark.parametrize(("age", "gender"), [(-1.0, 1.0), (0.0, 0.0)])
def test_invalid_loss_weights_are_refused(age: float, gender: float) -> None:
    with pytest.raises(AgeGenderError, match=r"loss.age="):
        MultiTaskLoss(age, gender)
