"""Metrics of the training, validation and test stages, and their names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from agegender.distributed.collectives import all_gather_cat
from agegender.tasks.task import Task


class MeanLosses(Metric):
    """The mean of the total loss and of each task's over faces.

    NaN propagates (torchmetrics' MeanMetric drops it by default).
    """

    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, losses: int, **options: Any) -> None:
        """Initialize the sums of this number of losses."""
        super().__init__(**options)
        self.add_state("total", default=torch.zeros(losses), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros(losses), dist_reduce_fx="sum")

    def update(self, losses: Tensor, counts: Tensor) -> None:
        """Add steps' losses `[steps, losses]`, each the mean of `counts` `[steps, losses]` faces."""
        self.total += torch.einsum("sl,sl->l", counts, losses)
        self.count += counts.sum(0)

    def compute(self) -> Tensor:
        """Return the means `[losses]`; NaN without faces."""
        return self.total / self.count


class StepOutput(NamedTuple):
    """Losses, predictions and labels of one step, on the device and without gradients.

    Attributes:
        losses: `[1 + tasks]`: the total and the tasks' losses.
        counts: float32 `[1 + tasks]`, number of faces that each of `losses` averages. On several ranks, the total is
            this rank's part of the global batch's loss, and its count the global batch divided by the ranks.
        decoded: Point predictions of each task, see `Task.decode`.
        labels: Column of the index to labels `[batch]`; NaN where missing.
    """

    losses: Tensor
    counts: Tensor
    decoded: Mapping[str, Mapping[str, Tensor]]
    labels: Mapping[str, Tensor]

    def without_faces(self) -> StepOutput:
        """Return a copy without predictions, for a rank whose batch is padding."""
        decoded = {name: {key: value[:0] for key, value in values.items()} for name, values in self.decoded.items()}
        return self._replace(decoded=decoded, labels={name: value[:0] for name, value in self.labels.items()})


class StageMetrics(nn.Module):
    """The metrics of one stage (train, val or test), accumulated on the device over an epoch.

    `update` only stores the step, and the metrics are updated many steps at a time. The results are the same, and a
    step takes microseconds instead of a millisecond, which matters for a small network on a GPU.

    All ranks take the same number of steps (see `DistributedBatchSlicer`). The steps are gathered, so that each rank's
    metrics cover every face once and need no synchronization of their states.
    """

    STEPS_AT_A_TIME = 256

    def __init__(self, stage: str, tasks: Mapping[str, Task]):
        """Create the metrics, named `<stage>/<task>_<metric>`, and the mean losses."""
        super().__init__()
        self.stage = stage
        self._loss_names = ["loss", *(f"{name}_loss" for name in tasks)]
        self._specs = [
            (f"{name}_{key}", name, task.label, metric)
            for name, task in tasks.items()
            for key, metric in task.metrics().items()
        ]
        self.losses = MeanLosses(len(self._loss_names), sync_on_compute=False)
        self.metrics = nn.ModuleList(spec.metric for *_, spec in self._specs)  # moved to the device with the module
        self._set_aside: list[StepOutput] = []

    def update(self, step: StepOutput) -> None:
        """Add a step."""
        self._set_aside.append(step)
        if len(self._set_aside) == self.STEPS_AT_A_TIME:
            self._count()

    def compute(self) -> dict[str, Tensor]:
        """Return the epoch's metrics by name and reset; NaN for metrics without any label.

        Empty without steps: a run can be resumed between an epoch's last step and its validation.
        """
        self._count()
        if not self.losses.update_called:
            return {}
        losses: Tensor = self.losses.compute()
        results = dict(zip(self._loss_names, losses.unbind(), strict=True))
        for name, _, _, spec in self._specs:
            results[name] = spec.metric.compute() if spec.metric.update_called else losses.new_tensor(math.nan)
        with torch.inference_mode(False):  # so that `fit` after `validate` can update the states in place
            for metric in (self.losses, *(spec.metric for *_, spec in self._specs)):
                metric.reset()
        return {f"{self.stage}/{name}": value for name, value in results.items()}

    def _count(self) -> None:
        """Update the metrics with the stored steps of all ranks."""
        if not self._set_aside:
            return
        steps, self._set_aside = self._set_aside, []
        losses, counts = (torch.stack(values) for values in zip(*(step[:2] for step in steps), strict=True))
        self.losses.update(all_gather_cat(losses), all_gather_cat(counts))
        gathered: dict[tuple[str, ...], Tensor] = {}  # a column may serve several metrics

        def column(kind: str, *path: str) -> Tensor:
            if (kind, *path) not in gathered:
                parts = [step.labels[path[0]] if kind == "label" else step.decoded[path[0]][path[1]] for step in steps]
                gathered[kind, *path] = all_gather_cat(torch.cat(parts))
            return gathered[kind, *path]

        for _, task, label, spec in self._specs:
            target = column("label", label)
            known = ~target.isnan()
            preds, target = column("prediction", task, spec.source)[known], target[known]
            if len(target):
                spec.metric.update(preds, target if spec.target is None else spec.target(target))
