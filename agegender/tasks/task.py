"""The interface of a task: a label column with its head, loss, metrics, predictions and calibration."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agegender.config.allowlist import instantiate
from agegender.errors import AgeGenderError, require
from agegender.system.csv_escape import is_plain
from agegender.tasks.info import Kind, TaskInfo

if TYPE_CHECKING:
    from torchmetrics import Metric  # slow to import: training only

Floats = NDArray[np.float64]

# Columns of a prediction that belong to no task, and the input of an exported network.
RESERVED = ("path", "face", "left", "top", "right", "bottom", "score", "error", "row", "pixels")


@dataclass(frozen=True)
class TaskMetric:
    """A metric of a task, and what it is updated with.

    Attributes:
        metric: Updated with predictions and targets of the samples whose label is known.
        source: Key of `Task.decode` that holds the predictions.
        title: Display name.
        form: Format of the value.
        target: Maps labels `[n]` to the metric's targets; None for the labels themselves.
        min_classes: Number of different labels without which the metric is undefined.
    """

    metric: Metric
    source: str
    title: str
    form: str
    target: Callable[[Tensor], Tensor] | None = None
    min_classes: int = 1


class Task(nn.Module):
    """A label column with its head, loss, metrics, predictions and calibration.

    A subclass sets `kind` and `num_outputs`, and implements `loss`, `decode`, `metrics` and `info`. Missing labels are
    NaN and are masked in `masked_loss` and by the metrics' caller, so that a subclass never sees one. See
    docs/extending.md.

    Attributes:
        label: Column of the index with the labels.
        weight: Weight of the loss.
        name: Key of the task in the config; `build_tasks` sets it.
        classes: Names of the classes; empty for a number.
        num_outputs: Width of the head.
    """

    kind: ClassVar[Kind]
    calibration_type: ClassVar[Any] = None  # a dataclass with `from_dict`; None for a task without a calibration
    num_outputs: int
    classes: tuple[str, ...] = ()

    def __init__(self, label: str, weight: float = 1.0):
        """Set the label column and the weight of the loss.

        Raises:
            AgeGenderError: `weight` is negative.
        """
        super().__init__()
        require(weight >= 0, f"weight={weight} must be at least 0")
        plain = bool(label) and is_plain(label)
        require(plain, f"label={label!r} must be printable, without a sign of a formula at the start")
        self.label, self.weight, self.name = label, weight, label
        self.calibration: Any = None  # not a buffer, which an EMA would average

    @property
    def info(self) -> TaskInfo:
        """The plain description of what the task predicts."""
        raise NotImplementedError

    def prepare(self, labels: Floats) -> None:
        """Set what follows from the known training labels `[n]`, before the training. By default nothing does."""

    def head(self, in_features: int) -> nn.Module:
        """Return the head's last layer, from features `[batch, in_features]` to `[batch, num_outputs]`."""
        return nn.Linear(in_features, self.num_outputs)

    def activation(self, outputs: Tensor) -> Tensor:
        """Map the last layer's outputs `[batch, num_outputs]` to the raw outputs. By default they are the same."""
        return outputs

    def loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample.

        Args:
            raw: `[batch, num_outputs]`.
            target: `[batch]`, without missing labels.

        Returns:
            `[batch]`, or `[batch, k]` whose sum over k is the loss of a sample.
        """
        raise NotImplementedError

    def masked_loss(self, raw: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of the samples with a label (0 without any), and their number, both scalars.

        Nothing here depends on a value on the host, so a GPU is not synchronized.

        Args:
            raw: `[batch, num_outputs]`.
            target: `[batch]`; NaN where missing.
        """
        known = ~target.isnan()
        losses = self.loss(raw, torch.where(known, target, 0.0))
        mask = known.view(-1, *[1] * (losses.ndim - 1))
        count = known.sum()
        return torch.where(mask, losses, 0.0).sum() / count.clamp(min=1), count

    def decode(self, raw: Tensor) -> dict[str, Tensor]:
        """Return the point predictions, each `[batch]`, for the metrics; among them those of `info.columns`."""
        raise NotImplementedError

    def predict(self, raw: Tensor) -> dict[str, Tensor]:
        """Return all of `info.columns`, calibrated, each `[batch]`; NaN where the task doesn't predict it."""
        return self.decode(raw)

    def metrics(self) -> dict[str, TaskMetric]:
        """Return new metrics by their names, to which `{stage}/{task}_` is added. The first is the default monitor."""
        raise NotImplementedError

    def baseline(self, train: Floats, test: Floats) -> dict[str, float]:
        """Return metrics of the constant prediction that is best for the training labels, on the test labels."""
        return {}

    def calibration_inputs(self, raw: Tensor) -> Tensor:
        """Return what `fit_calibration` needs of the raw outputs, `[batch, k]`. By default nothing, k = 0."""
        return raw[:, :0]

    def fit_calibration(self, inputs: Floats, target: Floats, corrupted: Floats) -> None:
        """Set `calibration` from faces that the network was not trained on. By default nothing is calibrated.

        Args:
            inputs: `[n, k]`, `calibration_inputs` of the faces as they are.
            target: `[n]`, labels; NaN where missing.
            corrupted: `[n, k]`, `calibration_inputs` of the same faces, mildly corrupted.
        """

    def soft_target(self, raw: Tensor) -> Tensor:
        """Return what a teacher teaches, `[batch, k]`: a distribution.

        Raises:
            AgeGenderError: The task predicts no distribution, so it can't be distilled.
        """
        raise AgeGenderError(f"teacher= requires distributions, and tasks.{self.name} predicts none: set age=dldl")

    def soft_loss(self, raw: Tensor, soft: Tensor) -> Tensor:
        """Return the mean loss (a scalar) against soft targets `[batch, k]`."""
        raise NotImplementedError

    def get_extra_state(self) -> Any:
        """Return the calibration as plain values, for the `state_dict`."""
        return None if self.calibration is None else asdict(self.calibration)

    def set_extra_state(self, state: Any) -> None:
        """Restore the calibration from a `state_dict`.

        Raises:
            AgeGenderError: The values are not a calibration of this task.
        """
        known = state is None or self.calibration_type is not None
        require(known, f"tasks.{self.name} has no calibration, but the checkpoint holds one: it is damaged")
        self.calibration = None if state is None else self.calibration_type.from_dict(state)


def masked_mean(
    cross_entropy: Callable[..., Tensor], raw: Tensor, target: Tensor, known: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what `Task.masked_loss` does for a binary cross-entropy, in PyTorch's own mean.

    Its gradient is divided last, which rounds otherwise than the gradient of a sum of losses.

    Args:
        cross_entropy: One of PyTorch's functions with the arguments `weight` and `reduction`.
        raw: `[batch, ...]`.
        target: Like `raw`.
        known: Bool `[batch]`, whether a sample has a label.
    """
    weight, count = known.to(raw.dtype).view(-1, *[1] * (raw.ndim - 1)), known.sum()
    mean = cross_entropy(raw, target, weight=weight, reduction="mean")
    return mean * (len(known) / count.clamp(min=1)), count


def build_tasks(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Task]:
    """Build the tasks of a config or a checkpoint.

    Args:
        nodes: Name of each task to its class (`_target_`) and arguments.

    Raises:
        AgeGenderError: There is no task, a class is not trusted, a value is invalid, or names clash.
    """
    present = {str(name): node for name, node in nodes.items() if node is not None}
    require(bool(present), "tasks is empty: keep at least one, such as tasks=age_gender")
    tasks: dict[str, Task] = {}
    seen = dict.fromkeys(RESERVED, "every prediction")
    for name, node in present.items():
        valid = name.isidentifier() and not hasattr(nn.ModuleDict(), name)
        require(valid, f"tasks.{name}: the name can't be used; choose another word of letters, digits and underscores")
        try:
            task: Task = instantiate(node, "tasks")
        except AgeGenderError as error:
            text = str(error)
            raise AgeGenderError(f"tasks.{name}.{text}" if re.match(r"\w+=", text) else text) from None
        task.name = name
        for field in (*task.info.fields, name):
            owner = seen.setdefault(field, name)
            require(owner == name, f"tasks.{name}: {owner} has a column {field} too; choose another name")
        tasks[name] = task
    require(sum(task.weight for task in tasks.values()) > 0, "all weights of the tasks are 0: set one above, such as 1")
    return tasks
