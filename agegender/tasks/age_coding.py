"""The interface of age codings: a last layer, a loss, decoding to years, and a spread in years."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class AgeCoding(Protocol):
    """The interface that the network and the training step require.

    Attributes:
        outputs: Width of the age head.
        classes: Number of age classes, whose accuracy is measured; None if ages aren't grouped.
    """

    outputs: int
    classes: int | None

    def layer(self, inputs: int) -> nn.Module:
        """Return the head's last layer, from features `[batch, inputs]` to outputs `[batch, outputs]`."""
        ...

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Return the mean loss (a scalar) of the head's outputs `[batch, outputs]` for ages `[batch]` in years."""
        ...

    def decode(self, raw: Tensor) -> Tensor:
        """Map the head's outputs `[batch, outputs]` to ages `[batch]` in years."""
        ...

    def spread(self, raw: Tensor) -> Tensor | None:
        """Return the standard deviation `[batch]` in years that the outputs imply; None if they imply none."""
        ...

    def label(self, age: Tensor) -> Tensor:
        """Return the class `[batch]` of ages `[batch]` in years; for codings with `classes` only."""
        ...


class Coding:
    """Base class of most codings: a dense last layer, no classes."""

    outputs = 1
    classes: int | None = None

    def layer(self, inputs: int) -> nn.Module:
        """Return a dense layer."""
        return nn.Linear(inputs, self.outputs)

    def label(self, age: Tensor) -> Tensor:
        """Raise NotImplementedError: ages aren't grouped."""
        raise NotImplementedError(f"{type(self).__name__} has no age classes")
