"""Lightning's FSDP as `trainer=fsdp` has it: large parts of a network are shared out one by one, on CPUs too."""

from __future__ import annotations

import functools
from typing import Any

from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy


class FullySharded(FSDPStrategy):
    """Each process holds a part of every large layer's weights, gradients and optimiser, and gathers it when used.

    Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", VLDB 2023. Checkpoints hold the
    whole network in one file, as any other's. Lightning keeps FSDP to NVIDIA's GPUs, though PyTorch has it for CPUs.
    """

    def __init__(self, least: int = 1_000_000, **options: Any):
        """Says what is shared out by itself.

        Args:
            least: Weights of a part of the network; smaller ones are gathered together with what holds them.
            options: Further arguments of Lightning's FSDPStrategy.
        """
        policy = functools.partial(size_based_auto_wrap_policy, min_num_params=least)
        super().__init__(auto_wrap_policy=policy, state_dict_type="full", **options)

    def _setup_model(self, model: nn.Module) -> nn.Module:
        if self.root_device.type != "cpu":
            wrapped: nn.Module = super()._setup_model(model)
            return wrapped
        return FullyShardedDataParallel(
            model,
            device_id=self.root_device,
            mixed_precision=self.mixed_precision_config,
            sharding_strategy=self.sharding_strategy,
            **self.kwargs,
        )
