"""The weighted sum of the tasks' losses."""

from __future__ import annotations

import pytest
import torch

from agegender.training.losses import MultiTaskLoss

BOTH = torch.tensor([True, True])


def test_fixed_loss_weights_are_those_given() -> None:
    loss = MultiTaskLoss([2.0, 0.5, 0.0])([torch.tensor(3.0), torch.tensor(4.0), torch.tensor(9.0)], torch.ones(3) > 0)
    assert loss.item() == 8.0
    assert not list(MultiTaskLoss([1.0]).parameters())


def test_learned_loss_weights_start_at_the_fixed_ones() -> None:
    losses = [torch.tensor(3.0), torch.tensor(4.0)]
    learned = MultiTaskLoss([2.0, 0.5], learned=True)
    assert learned(losses, BOTH).item() == MultiTaskLoss([2.0, 0.5])(losses, BOTH).item()


def test_learned_loss_weights_converge_to_one_half_per_task() -> None:
    # d/ds (L exp(-s) + s / 2) = 0 at exp(s) = 2 L: each weighted loss converges to one half
    losses = [torch.tensor(3.0), torch.tensor(0.04)]
    balance = MultiTaskLoss([1.0, 1.0], learned=True)
    optimizer = torch.optim.Adam(balance.parameters(), lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        balance(losses, BOTH).backward()
        optimizer.step()
    assert balance.log_variance is not None
    assert balance.log_variance.exp().tolist() == pytest.approx([6.0, 0.08], rel=0.01)
