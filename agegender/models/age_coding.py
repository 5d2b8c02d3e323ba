"""What every age coding offers: a last layer, a loss, an answer in years, and a spread in years."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class AgeCoding(Protocol):
    """What the network and the training step need of a coding.

    Attributes:
        outputs: Width of the age head.
        classes: Number of age classes whose accuracy is worth measuring; None where ages aren't grouped.
    """

    outputs: int
    classes: int | None

    def layer(self, inputs: int) -> nn.Module:
        """Returns the head's last layer, from features `[batch, inputs]` to outputs `[batch, outputs]`."""
        ...

    def loss(self, raw: Tensor, age: Tensor) -> Tensor:
        """Returns the mean loss (a scalar) of the head's outputs `[batch, outputs]` for ages `[batch]` in years."""
        ...

    def decode(self, raw: Tensor) -> Tensor:
        """Maps the head's outputs `[batch, outputs]` to ages `[batch]` in years."""
        ...

    def spread(self, raw: Tensor) -> Tensor | None:
        """Returns the standard deviation `[batch]` in years that the outputs state; None if they state none."""
        ...

    def label(self, age: Tensor) -> Tensor:
        """Returns the class `[batch]` of ages `[batch]` in years; of codings with `classes` only."""
        ...


class Coding:
    """What most codings have in common: a dense last layer, no classes."""

    outputs = 1
    classes: int | None = None

    def layer(self, inputs: int) -> nn.Module:
        """Returns a dense layer."""
        return nn.Linear(inputs, self.outputs)

    def label(self, age: Tensor) -> Tensor:
        """Refuses: ages aren't grouped."""
        raise NotImplementedError(f"{type(self).__name__} has no age classes")
