"""The LightningModule: training, validation and test steps."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Self

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor

from agegender.data.augmentation.corruptions import corrupt_any
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.loading.dataset import Batch, step_seed
from agegender.distributed.collectives import all_gather_cat, all_reduce_sum
from agegender.errors import AgeGenderError, require
from agegender.models.network import AgeGenderNet, RawOutputs
from agegender.runs.checkpoint import find_checkpoint, load_checkpoint, read_calibration
from agegender.training.fit_calibration import fit_calibration
from agegender.training.losses import MultiTaskLoss, known_losses
from agegender.training.metrics import StageMetrics, StepOutput
from agegender.training.optim import build_optimizer, build_scheduler, param_groups, parameter_ndims
from agegender.version import __version__

if TYPE_CHECKING:
    from agegender.training.distillation.soft_targets import SoftTargets

# conf/optim/adam.yaml's optimizer, without a schedule
OPTIM: dict[str, Any] = {"optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3}}


class AgeGenderModule(pl.LightningModule):
    """Trains an `AgeGenderNet` on ages and genders together.

    The loss is `loss.gender * BCE + loss.age * age loss` (see `MultiTaskLoss`). Regression losses are in units of about
    one standard deviation of the ages, and CORAL's is a mean over years, so that with weights of 1 both parts start
    near the same value; those of `classes` and `dldl` start near 3 (see `tasks/age_distribution.py`).

    With `soft_targets`, each part is averaged with its distillation loss before the two are balanced (see
    `training/distillation/teachers.py`). `train/loss` is the total; `train/age_loss`, `train/gender_loss` and every
    loss of validation and test are those of the labels alone.
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
            network: Arguments of `AgeGenderNet`.
            optim: `optimizer` (with `_target_`), `scheduler` (null, or with `_target_`, see `build_scheduler`) and
                `trunk_lr_mult` (see `param_groups`).
            loss: Weights of `age` and `gender`, 1 each by default, and `learned`: whether the balance is learned.
            split: The split's `fingerprint` and settings, saved in checkpoints.
            seed: Seed of the dropout masks.
            tta: `flip` to average over an image and its mirror image, outside the training.
        """
        super().__init__()
        self.save_hyperparameters(logger=False)
        # Channels last is the cache's layout, and makes convolutions on a CPU a third faster.
        self.network = AgeGenderNet(**network).to(memory_format=torch.channels_last)
        self._dimensions = parameter_ndims(self.network)
        self.balance = MultiTaskLoss(**(loss or {}))
        self.optim, self.seed, self.tta = optim, seed, tta
        # Input of the calibration, [batch, 6] each; see `_certainty`.
        self._validated: list[Tensor] = []
        self._validated_corrupted: list[Tensor] = []
        self.pretrained_split: str | None = None  # fingerprint of the initial weights' split
        self.origin: str | None = None  # name and license of the initial published weights
        self.soft_targets: SoftTargets | None = None  # not part of a checkpoint
        self.masks = False  # whether some faces lack a label; set from the index, before the first step
        classes = self.network.coding.classes
        self.train_metrics, self.val_metrics, self.test_metrics = (
            StageMetrics(stage, classes) for stage in ("train", "val", "test")
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

    def setup(self, stage: str) -> None:
        """Set `masks`, whether some faces lack a label."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, AgeGenderDataModule):
            self.masks = not data.index.complete

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return ages in years `[batch]` and p_female `[batch]` for images `[batch, channels, size, size]`."""
        outputs = self.network(images)
        return self.network.years(outputs), self.network.p_female(outputs)

    def _metrics(self, stage: str) -> StageMetrics:
        return {"train": self.train_metrics, "val": self.val_metrics, "test": self.test_metrics}[stage]

    def _step(self, batch: Batch, stage: str) -> tuple[Tensor, RawOutputs, StepOutput]:
        """Return the loss to minimize, the network's outputs, and the step's metrics for one batch."""
        network = self.network
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        flip = self.tta == "flip" and self.trainer.state.fn != TrainerFn.FITTING
        features = batch.get("features")
        if features is not None and not flip:
            outputs = network.forward_heads(features)
        else:
            outputs = network.forward_tta(images) if flip else network(images)
        if self.masks:
            age_loss, gender_loss, known = known_losses(network, outputs, batch)
        else:
            age_loss = network.coding.loss(outputs.age, batch["age"])
            gender_loss, known = network.gender_loss(outputs, batch["gender"]), None
        soft = None
        if stage == "train" and self.soft_targets is not None:
            soft = self.soft_targets.losses(network, outputs, batch["row"])
        loss = self._balanced(age_loss, gender_loss, known, soft)
        weight, rank_loss = batch.get("weight"), loss
        if weight is not None:
            rank_loss = self._part_of_loss(weight, age_loss, gender_loss, known, soft)
            if known is not None:  # the ranks' losses are over different labels, so their mean isn't the loss
                loss = all_reduce_sum(rank_loss.detach()) / self.trainer.world_size
        with torch.no_grad():
            losses = torch.stack((loss, age_loss, gender_loss))
            years, p_female = network.years(outputs), network.p_female(outputs)
            step = StepOutput(losses, years, batch["age"], p_female, batch["gender"], known=known)
            if network.coding.classes:
                step = step._replace(age_class_pred=outputs.age.argmax(1), age_class=network.coding.label(batch["age"]))
        self._metrics(stage).update(step if weight != 0 else step.empty())
        return rank_loss, outputs, step

    def _balanced(
        self, age_loss: Tensor, gender_loss: Tensor, known: Tensor | None, soft: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Return the total loss of the labels and, if there are teachers, of the soft targets, which no face lacks."""
        if soft is None or self.soft_targets is None:
            loss: Tensor = self.balance(age_loss, gender_loss, known)
            return loss
        mixed = self.soft_targets.mixed
        loss = self.balance(mixed(age_loss, soft[0]), mixed(gender_loss, soft[1]))
        return loss

    def _part_of_loss(
        self,
        weight: float,
        age_loss: Tensor,
        gender_loss: Tensor,
        known: Tensor | None,
        soft: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Return this rank's loss, scaled so that the mean over the ranks is the loss of the global batch.

        DDP averages the gradients regardless of how many faces or labels each rank has.
        """
        ages: float | Tensor = weight
        genders: float | Tensor = weight
        if known is not None:
            own, known = known * (weight > 0), all_reduce_sum(known * (weight > 0))
            ages, genders = (own * self.trainer.world_size / known.clamp(min=1))[1:]
        soft = None if soft is None else (weight * soft[0], weight * soft[1])
        return self._balanced(ages * age_loss, genders * gender_loss, known, soft)

    def _calibrates(self) -> bool:
        """Return whether this validation fits the calibration.

        A network that is only evaluated keeps its calibration, unless it has none.
        """
        return self.trainer.state.fn == TrainerFn.FITTING or self.network.calibration is None

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
        """Return the batch's loss."""
        return self._step(batch, "train")[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the predictions, each `[batch]` (see `callbacks.Answers`)."""
        _, outputs, step = self._step(batch, "val")
        if self._calibrates():
            self._validated.append(self._certainty(outputs, batch))
            self._validated_corrupted.append(self._certainty(self._corrupted(batch), batch))
        return {"row": batch["row"], "age_pred": step.age_pred, "p_female": step.p_female}

    def _corrupted(self, batch: Batch) -> RawOutputs:
        """Return the outputs for the batch's faces with one mild corruption each."""
        if (features := batch.get("corrupted")) is not None:
            return self.network.forward_heads(features)
        images = corrupt_any(batch["image"], batch["row"]).contiguous(memory_format=torch.channels_last)
        outputs: RawOutputs = self.network(images)
        return outputs

    def _certainty(self, outputs: RawOutputs, batch: Batch) -> Tensor:
        """Return the input of the calibration and the rows, `[batch, 6]`."""
        network = self.network
        predicted = network.years(outputs), network.stated(outputs), network.gender_logit(outputs)
        return torch.stack([column.double() for column in (*predicted, batch["age"], batch["gender"], batch["row"])], 1)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the predictions and their uncertainty, each `[batch]`."""
        _, outputs, step = self._step(batch, "test")
        low, high = self.network.age_interval(outputs)
        spread = {"age_std": self.network.age_std(outputs), "age_low": low, "age_high": high}
        return {"row": batch["row"], "age_pred": step.age_pred, **spread, "p_female": step.p_female}

    def on_train_epoch_end(self) -> None:
        """Log the training metrics; after a mid-epoch resume they cover the rest of the epoch only."""
        self._log_metrics("train")

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics, and fit the calibration to the validation faces."""
        self._log_metrics("val")
        if self._calibrates():
            clean, corrupted = map(_each_once, (self._validated, self._validated_corrupted))
            predicted, stated, logits, age, gender = clean.T
            self.network.calibration = fit_calibration(predicted, stated, logits, age, gender, corrupted)
        self._validated.clear()
        self._validated_corrupted.clear()

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        for name, value in self._metrics(stage).compute().items():
            self.log(name, value, prog_bar=name in ("val/age_mae", "val/gender_acc"))

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
            "labels": {"gender": ["male", "female"], "age": "years"},
            "split": self.hparams["split"],
            "origin": self.origin,
            "pretrained_split": self.pretrained_split,
            "calibration": None if self.network.calibration is None else asdict(self.network.calibration),
            **({} if self.soft_targets is None else {"teachers": self.soft_targets.teachers}),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what belongs to the weights: their origin and their calibration."""
        self.origin = checkpoint["agegender"].get("origin")
        self.pretrained_split = checkpoint["agegender"].get("pretrained_split")
        self.network.calibration = read_calibration(checkpoint)


def _each_once(parts: list[Tensor]) -> NDArray[np.float64]:
    """Return the rows `[faces, 5]` of all ranks, sorted by face and without duplicates."""
    rows = all_gather_cat(torch.cat(parts)).cpu().numpy()
    _, first = np.unique(rows[:, -1], return_index=True)
    unique: NDArray[np.float64] = rows[first, :-1]
    return unique
