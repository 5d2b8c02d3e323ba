"""The LightningModule: training, validation and test steps."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Self

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from agegender.data.augmentation.corruptions import corrupt_any
from agegender.data.augmentation.mixing import Mixing
from agegender.data.loading.dataset import Batch, step_seed
from agegender.distributed.collectives import all_reduce_sum
from agegender.errors import AgeGenderError, require
from agegender.models.network import MultiTaskNet, RawOutputs
from agegender.runs.checkpoint import find_checkpoint, load_checkpoint
from agegender.training.callbacks.prediction_buffer import PredictionBuffer
from agegender.training.losses import MultiTaskLoss
from agegender.training.metrics import StageMetrics, StepOutput
from agegender.training.optim import build_optimizer, build_scheduler, param_groups, parameter_ndims
from agegender.version import __version__

if TYPE_CHECKING:
    from agegender.training.distillation.soft_targets import SoftTargets

# conf/optim/adam.yaml's optimizer, without a schedule
OPTIM: dict[str, Any] = {"optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3}}


class AgeGenderModule(pl.LightningModule):
    """Trains a `MultiTaskNet` on all tasks together.

    The loss is the weighted sum of the tasks' losses (see `MultiTaskLoss`), each the mean over the faces with a label.

    With `mixing`, an image combines two faces, and a loss is the weighted mean of the losses against both faces' labels
    (or soft targets). The training metrics count the label with the larger weight.

    With `soft_targets`, each part is averaged with its distillation loss before they are balanced (see
    `training/distillation/teachers.py`). `train/loss` is the total; `train/<task>_loss` and every loss of validation
    and test are those of the labels alone.
    """

    def __init__(
        self,
        network: dict[str, Any],
        optim: dict[str, Any],
        loss: dict[str, Any] | None = None,
        split: dict[str, Any] | None = None,
        seed: int = 0,
        tta: Literal["none", "flip"] = "none",
    ):
        """Build the network; every argument is a plain value, so that a checkpoint loads with `weights_only=True`.

        Args:
            network: Arguments of `MultiTaskNet`.
            optim: `optimizer` (with `_target_`), `scheduler` (null, or with `_target_`, see `build_scheduler`) and
                `trunk_lr_mult` (see `param_groups`).
            loss: `learned`: whether the balance of the tasks is learned.
            split: The split's `fingerprint`, `protocol` and settings, saved in checkpoints.
            seed: Seed of the dropout masks and of the mixing.
            tta: `flip` to average over an image and its mirror image, outside the training.
        """
        super().__init__()
        self.save_hyperparameters(logger=False)
        # Channels last is the cache's layout, and makes convolutions on a CPU a third faster.
        self.network = MultiTaskNet(**network).to(memory_format=torch.channels_last)
        self._dimensions = parameter_ndims(self.network)
        tasks = dict(self.network.each_task())
        self.balance = MultiTaskLoss([task.weight for task in tasks.values()], **(loss or {}))
        self.optim, self.seed, self.tta = optim, seed, tta
        # Inputs of the calibration: see `_calibration_inputs`.
        self._validated = PredictionBuffer()
        self._shown = [f"val/{name}_{next(iter(task.metrics()))}" for name, task in tasks.items()]
        self.pretrained_split: str | None = None  # fingerprint of the initial weights' split
        self.origin: str | None = None  # name and license of the initial published weights
        self.soft_targets: SoftTargets | None = None  # not part of a checkpoint
        self.mixing: Mixing | None = None  # likewise
        self.train_metrics, self.val_metrics, self.test_metrics = (
            StageMetrics(stage, tasks) for stage in ("train", "val", "test")
        )

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | Path | IO[Any],
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **kwargs: Any,
    ) -> Self:
        """Build the module from a checkpoint of a training, or from bundled weights.

        Args:
            checkpoint_path: A value of `weights=`: a checkpoint, a run's folder, `default`, `face` or `small`.
            map_location: Device of the weights; None for the CPU.
            hparams_file: Ignored: the checkpoint describes its network.
            strict: See `torch.nn.Module.load_state_dict`; None for True.
            weights_only: Ignored, always True: no code of a checkpoint is run.
            **kwargs: Arguments of the module that replace the checkpoint's, such as `optim={...}` for further training.

        Raises:
            AgeGenderError: The checkpoint doesn't exist, is damaged, or is not an agegender checkpoint.
        """
        if not isinstance(checkpoint_path, str | Path):
            raise AgeGenderError("pass a checkpoint's path or name: an open file is not supported")
        checkpoint = load_checkpoint(find_checkpoint(checkpoint_path))
        MultiTaskNet.from_checkpoint(checkpoint, checkpoint_path)  # raises if it can't be used
        described = checkpoint["agegender"]
        # Bundled weights have no training settings.
        defaults = {"network": described["network"], "optim": OPTIM, "split": described.get("split")}
        saved = checkpoint.get("hyper_parameters", {})
        unknown = sorted(set(saved) - set(inspect.signature(cls).parameters))
        require(not unknown, f"{checkpoint_path} has unknown hyperparameters ({', '.join(unknown)}): it is refused")
        module = cls(**{**defaults, **saved, **kwargs})
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"], strict=strict is not False)
        return module.to(map_location) if map_location is not None else module

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the columns of all tasks, each `[batch]`, for images `[batch, channels, size, size]`."""
        return self.network.predict(self.network(images))

    def _metrics(self, stage: str) -> StageMetrics:
        return {"train": self.train_metrics, "val": self.val_metrics, "test": self.test_metrics}[stage]

    def _step(self, batch: Batch, stage: str) -> tuple[Tensor, RawOutputs, StepOutput]:
        """Return the loss to minimize, the network's outputs, and the step's metrics for one batch."""
        network = self.network
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        flip = self.tta == "flip" and self.trainer.state.fn != TrainerFn.FITTING
        features = batch.get("features")
        if features is not None and not flip:
            raw = network.forward_heads(features)
        else:
            raw = network.forward_tta(images) if flip else network(images)
        loss, losses, counts = self._losses(raw, batch, stage)
        with torch.no_grad():
            partners = batch.get("partners")
            labels = batch["labels"] if partners is None else partners.dominant(batch["labels"])
            step = StepOutput(losses, counts, network.decode(raw), labels)
        self._metrics(stage).update(step if batch.get("weight") != 0 else step.without_faces())
        return loss, raw, step

    def _losses(self, raw: RawOutputs, batch: Batch, stage: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss to minimize, and the step's `losses` and `counts` (see `StepOutput`).

        DDP averages the gradients regardless of how many faces or labels each rank has. So this rank's part is scaled
        such that the mean over the ranks is the loss of the global batch.
        """
        means, counts = self._label_losses(raw, batch["labels"])
        partners = batch.get("partners")
        if partners is not None:  # the counts are the same: the partners are the same faces in another order
            means = partners.mixed(means, self._label_losses(raw, partners.of(batch["labels"]))[0])
        own = torch.stack([means[0].new_full((), len(batch["row"])), *(count.float() for count in counts)])
        everywhere, parts, shares, ranks = own, means, torch.ones_like(own), 1
        if (weight := batch.get("weight")) is not None:
            ranks = self.trainer.world_size
            own = own * (weight > 0)  # a part that only pads the step counts on another rank
            everywhere = all_reduce_sum(own)
            shares = own * ranks / everywhere.clamp(min=1)
            parts = [mean * share for mean, share in zip(means, shares[1:], strict=True)]
        labeled = everywhere[1:] > 0
        if stage == "train" and self.soft_targets is not None:
            soft = self.soft_targets.losses(self.network, raw, batch["row"])
            if partners is not None:
                other = self.soft_targets.losses(self.network, raw, batch["row"][partners.order])
                soft = partners.mixed(soft, other)
            soft = [each * shares[0] for each in soft]
            parts = [self.soft_targets.mixed(*pair) for pair in zip(parts, soft, strict=True)]
            labeled = torch.ones_like(labeled)  # no face lacks a soft target
        loss = self.balance(parts, labeled)
        recorded = torch.cat((everywhere[:1] / ranks, own[1:]))
        return loss, torch.stack((loss.detach(), *(mean.detach() for mean in means))), recorded

    def _label_losses(self, raw: RawOutputs, labels: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the mean loss of each task over the faces with its label, and their numbers, scalars."""
        masked = [task.masked_loss(raw[name], labels[task.label]) for name, task in self.network.each_task()]
        return [mean for mean, _ in masked], [count for _, count in masked]

    def _calibrates(self) -> bool:
        """Return whether this validation fits the calibration.

        A network that is only evaluated keeps its calibration, unless it has none.
        """
        fitted = any(task.calibration is not None for _, task in self.network.each_task())
        return self.trainer.state.fn == TrainerFn.FITTING or not fitted

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make this step's dropout a function of seed, epoch and step (see `step_seed`)."""
        seed = step_seed(self.seed, self.current_epoch, batch_idx, "step", self.global_rank)
        # torch.manual_seed seeds all device types, which takes a millisecond
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the batch, whose images are mixed if `mixing` is set."""
        if self.mixing is not None:
            seed = step_seed(self.seed, self.current_epoch, batch_idx, "mix", self.global_rank)
            images, partners = self.mixing(batch["image"], seed)
            batch = {**batch, "image": images, "partners": partners}
        return self._step(batch, "train")[0]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the loss of this rank's faces, each `trainer.log_every_n_steps`."""
        # Lightning has divided it for the accumulation of gradients.
        self.log("train/loss_step", outputs["loss"] * self.trainer.accumulate_grad_batches)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the rows and the point predictions, each `[batch]`, by `info.columns`."""
        _, raw, step = self._step(batch, "val")
        if self._calibrates():
            self._validated.append(self._calibration_inputs(raw, batch))
        return {"row": batch["row"], **{key: value for each in step.decoded.values() for key, value in each.items()}}

    def _corrupted(self, batch: Batch) -> RawOutputs:
        """Return the raw outputs for the batch's faces with one mild corruption each."""
        if (features := batch.get("corrupted")) is not None:
            return self.network.forward_heads(features)
        images = corrupt_any(batch["image"], batch["row"]).contiguous(memory_format=torch.channels_last)
        raw: RawOutputs = self.network(images)
        return raw

    def _calibration_inputs(self, raw: RawOutputs, batch: Batch) -> dict[str, Tensor]:
        """Return rows and labels `[batch]`, and the tasks' calibration inputs `[batch, k]`, clean and corrupted."""
        inputs, corrupted = {"row": batch["row"]}, self._corrupted(batch)
        for name, task in self.network.each_task():
            inputs[f"{name}/clean"] = task.calibration_inputs(raw[name])
            inputs[f"{name}/corrupted"] = task.calibration_inputs(corrupted[name])
            inputs[f"{name}/label"] = batch["labels"][task.label]
        return inputs

    def _fit_calibration(self) -> None:
        """Fit each task's calibration to the validation faces, as they are and corrupted."""
        inputs = self._validated.pop_all()
        for name, task in self.network.each_task():
            clean, label, corrupted = (
                inputs[f"{name}/{kind}"].astype(np.float64) for kind in ("clean", "label", "corrupted")
            )
            task.fit_calibration(clean, label, corrupted)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the rows, and the predictions with their uncertainty, each `[batch]`, by `info.columns`."""
        _, raw, _ = self._step(batch, "test")
        return {"row": batch["row"], **self.network.predict(raw)}

    def on_train_epoch_end(self) -> None:
        """Log the training metrics; after a mid-epoch resume they cover the rest of the epoch only."""
        self._log_metrics("train")

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics, and fit the calibration to the validation faces."""
        self._log_metrics("val")
        if self._calibrates():
            self._fit_calibration()

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        for name, value in self._metrics(stage).compute().items():
            self.log(name, value, prog_bar=name in self._shown)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig | torch.optim.Optimizer:
        """Build the optimizer and, if there is one, the scheduler of its learning rates."""
        settings = self.optim["optimizer"]
        factor = self.optim.get("trunk_lr_mult", 1.0)
        groups = param_groups(self.network, self.balance.parameters(), settings, factor, self._dimensions)
        optimizer = build_optimizer(settings, groups)
        scheduler: Mapping[str, Any] | None = self.optim.get("scheduler")
        if scheduler is None:
            return optimizer
        length = self.trainer.estimated_stepping_batches
        steps, epochs = (int(length) if length < float("inf") else 0), self.trainer.max_epochs or 0
        return {"optimizer": optimizer, "lr_scheduler": build_scheduler(scheduler, optimizer, steps, epochs)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add everything needed to use the checkpoint without this run's config; see `prediction/predictor.py`."""
        checkpoint["agegender"] = {
            "version": __version__,
            "network": self.hparams["network"],
            "tasks": [info.to_dict() for info in self.network.infos],
            "split": self.hparams["split"],
            "origin": self.origin,
            "pretrained_split": self.pretrained_split,
            **({} if self.soft_targets is None else {"teachers": self.soft_targets.teachers}),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore where the weights come from."""
        self.origin = checkpoint["agegender"].get("origin")
        self.pretrained_split = checkpoint["agegender"].get("pretrained_split")
