"""Lightning's FSDP as `trainer=fsdp` has it: large parts of a network are shared out one by one, on CPUs too."""

from __future__ import annotations

import functools
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    FullyShardedDataParallel,
    OptimStateKeyType,
    StateDictType,
)
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy
from torch.optim import Optimizer


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
        # Of a weight that is channels last, PyTorch saves what an optimiser keeps in one order and loads it in another
        model = model.to(memory_format=torch.contiguous_format)
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

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Returns the whole optimiser's state, gathered by the first process.

        PyTorch gathers all values of a kind (Adam's two moments, say) in the same buffer and counts on their being
        copied to the CPU from there. On a CPU nothing is copied, so that the first moments would be the second ones.
        """
        if self.root_device.type != "cpu":
            state: dict[str, Any] = super().optimizer_state(optimizer)
            return state
        assert self.model is not None
        whole = FullStateDictConfig(rank0_only=True), FullOptimStateDictConfig(rank0_only=True, offload_to_cpu=False)
        inner = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        with FullyShardedDataParallel.state_dict_type(self.model, StateDictType.FULL_STATE_DICT, *whole):
            gathered = FullyShardedDataParallel.optim_state_dict(self.model, inner)
            if self.global_rank != 0:
                return gathered
            return FullyShardedDataParallel.rekey_optim_state_dict(gathered, OptimStateKeyType.PARAM_ID, self.model)
