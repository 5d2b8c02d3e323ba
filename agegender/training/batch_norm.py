"""Batch norm over the faces of all processes, on CPUs too: PyTorch's own (SyncBatchNorm) is for GPUs only."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.plugins import LayerSync
from torch import Tensor, nn

from agegender.training.together import added_up, several


class SharedBatchNorm(LayerSync):
    """Has every batch norm of a module in training count the faces of all processes, as one process would."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Makes the module's layers count together; their weights, and the names of these, stay what they are."""
        for layer in model.modules():
            if type(layer) in _SHARED:
                layer.__class__ = _SHARED[type(layer)]
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Makes them PyTorch's again."""
        back = {shared: plain for plain, shared in _SHARED.items()}
        for layer in model.modules():
            if type(layer) in back:
                layer.__class__ = back[type(layer)]
        return model


class _AddedUp(torch.autograd.Function):
    """The sum over all processes: each one's part moves the loss of all, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return added_up(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return added_up(gradients[0].contiguous())


class _Shared(nn.modules.batchnorm._BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        """Normalises `[batch, channels, ...]`; as PyTorch's where nothing is trained."""
        if not (self.training and several()):
            return super().forward(input)
        others = [dimension for dimension in range(input.ndim) if dimension != 1]
        values = input.float()
        count = torch.full((1,), values.numel() / values.shape[1], device=values.device)
        total: Tensor = _AddedUp.apply(torch.cat((values.sum(others), count)))
        count = total[-1].detach()
        shape = [1, -1, *[1] * (input.ndim - 2)]
        centred = values - (total[:-1] / count).view(shape)
        variance: Tensor = _AddedUp.apply(centred.square().sum(others)) / count
        with torch.no_grad():
            self._remember(total[:-1] / count, variance * count / (count - 1).clamp(min=1))
        normed = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        answer: Tensor = normed.to(input.dtype)
        return answer

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)


class _Shared1d(_Shared, nn.BatchNorm1d):
    pass


class _Shared2d(_Shared, nn.BatchNorm2d):
    pass


_SHARED: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm1d: _Shared1d, nn.BatchNorm2d: _Shared2d}
