"""Collectives over all ranks; with one process, each returns its argument."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from agegender.distributed.launcher import detect_launcher

T = TypeVar("T")


def is_distributed() -> bool:
    """Return whether this process is one of several in a process group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_rank_zero() -> bool:
    """Return whether this process is rank 0, which writes files, or the only process."""
    launch = detect_launcher()
    return launch is None or launch.rank == 0


def all_gather_cat(values: Tensor) -> Tensor:
    """Return the tensors of all ranks, concatenated in the order of ranks; with one process, the tensor itself.

    Args:
        values: `[n, ...]`; n may differ between ranks and may be zero.
    """
    return torch.cat(gather_all_tensors(values)) if is_distributed() else values


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return the sum of the tensors of all ranks; with one process, the tensor itself."""
    if is_distributed():
        values = values.clone()
        dist.all_reduce(values)
    return values


class MaxOverRanks:
    """A maximum over all ranks, computed on the CPU because a GPU would have to synchronize at every step."""

    _group: Any = None  # the default group

    def all_reduce_max(self, value: int) -> int:
        """Return the maximum of an integer over all ranks; a collective, which every rank must call."""
        if not is_distributed():
            return value
        if self._group is None and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")
        vote = torch.tensor([value])
        dist.all_reduce(vote, dist.ReduceOp.MAX, group=self._group)
        return int(vote)


def first_not_none(value: T | None) -> T | None:
    """Return the value of the lowest rank that has one, or None; a collective, which every rank must call."""
    if not is_distributed():
        return value
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return next((each for each in values if each is not None), None)
