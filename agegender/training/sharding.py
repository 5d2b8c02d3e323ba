"""Lightning's FSDP as `trainer=fsdp` has it: large parts of a network are shared out one by one."""

from __future__ import annotations

import functools
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy


class FullySharded(FSDPStrategy):
    """Each process holds a part of every large layer's weights, gradients and optimiser, and gathers it when used.

    Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", VLDB 2023. Checkpoints hold the
    whole network in one file, as any other's. Lightning keeps FSDP to NVIDIA's GPUs.
    """

    def __init__(self, least: int = 1_000_000, **options: Any):
        """Says what is shared out by itself.

        Args:
            least: Weights of a part of the network; smaller ones are gathered together with what holds them.
            options: Further arguments of Lightning's FSDPStrategy.
        """
        policy = functools.partial(size_based_auto_wrap_policy, min_num_params=least)
        super().__init__(auto_wrap_policy=policy, state_dict_type="full", **options)

    def setup(self, trainer: pl.Trainer) -> None:
        """Shares the network out, its weights in the order of their dimensions.

        Of a weight that is channels last, PyTorch saves what an optimiser keeps in one order and loads it in another.
        """
        assert self.model is not None
        self.model = self.model.to(memory_format=torch.contiguous_format)
        super().setup(trainer)
