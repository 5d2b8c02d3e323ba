"""How the network is trained: one step for three stages."""

from __future__ import annotations

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

from agegender.checkpoint import find_checkpoint, load_checkpoint, read_calibration
from agegender.data.corruptions import corrupt_any
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.dataset import Batch, step_seed
from agegender.errors import AgeGenderError
from agegender.models.network import AgeGenderNet, Outputs
from agegender.training.balance import Balance
from agegender.training.build import build_optimizer, build_scheduler
from agegender.training.calibrating import fit_calibration
from agegender.training.known import known_losses
from agegender.training.metrics import StageMetrics, Step
from agegender.training.parameters import count_dimensions, parameter_groups
from agegender.training.together import added_up, gathered
from agegender.version import __version__

if TYPE_CHECKING:
    from agegender.training.soft_targets import SoftTargets

# conf/optim/adam.yaml's optimizer, without a schedule
OPTIM: dict[str, Any] = {"optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3}}


class AgeGenderModule(pl.LightningModule):
    """Trains an `AgeGenderNet` on ages and genders together.

    The loss is `loss.gender * BCE + loss.age * age loss` (see `Balance`). The age losses of one number are counted in
    units of about one standard deviation of the ages, and CORAL's per year, so that with weights of 1 both parts start
    at about the same size; those of `classes` and `dldl` start near 3 (see `models/age_distribution.py`).

    With `soft_targets`, each part is mixed with the loss of what teachers answer before the two are balanced (see
    `training/distillation.py`). `train/loss` is this whole; `train/age_loss`, `train/gender_loss` and every loss of
    validation and test are the labels' alone.
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
        """Builds the network; every argument is a plain value, so that a checkpoint loads with `weights_only=True`.

        Args:
            network: Arguments of `AgeGenderNet`.
            optim: `optimizer` (with `_target_`), `scheduler` (null, or with `_target_`, see `build_scheduler`) and
                `trunk_factor` (see `parameter_groups`).
            loss: Weights of `age` and `gender`, 1 each by default, and `learned`: whether their balance is learnt too.
            split: What the network was trained on: the split's `fingerprint` and settings. Travels in the checkpoint.
            seed: Chooses dropout masks.
            tta: `flip` to answer with the mean over a picture and its mirror image once the training is over.
        """
        super().__init__()
        self.save_hyperparameters(logger=False)
        # Channels last is how the pixels lie in the cache, and a third faster for convolutions on a CPU.
        self.network = AgeGenderNet(**network).to(memory_format=torch.channels_last)
        self._dimensions = count_dimensions(self.network)
        self.balance = Balance(**(loss or {}))
        self.optim, self.seed, self.tta = optim, seed, tta
        # What the calibration is fitted to, [batch, 6] each; see `_certainty`.
        self._validated: list[Tensor] = []
        self._validated_corrupted: list[Tensor] = []
        self.weights_split: str | None = None  # the split under which the weights were made that it began with
        self.origin: str | None = None  # the published weights that it began with, and what their publishers allow
        self.soft_targets: SoftTargets | None = None  # of teachers; no part of a checkpoint
        self.masks = False  # whether some of the faces lack a label; known from the index, before the first step
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
        """Builds the module of a checkpoint; any that a training wrote, and those that come with the package.

        Args:
            checkpoint_path: As `weights=` takes it: a checkpoint, a run's folder, `default`, `face` or `small`.
            map_location: The device that the weights go to; None for the CPU.
            hparams_file: Not needed: a checkpoint of ours describes its network.
            strict: See `torch.nn.Module.load_state_dict`; None for True.
            weights_only: Always True: no code of a checkpoint is run.
            **kwargs: Arguments of the module that replace the checkpoint's: `optim={...}` to train on.

        Raises:
            AgeGenderError: There is no such checkpoint, it is damaged, or it is not one of ours.
        """
        if not isinstance(checkpoint_path, str | Path):
            raise AgeGenderError("give a checkpoint by its name: an open file can't be looked up, nor checked")
        checkpoint = load_checkpoint(find_checkpoint(checkpoint_path))
        described = checkpoint["agegender"]
        # Weights that were packed to be passed on have no settings of a training.
        begun = {"network": described["network"], "optim": OPTIM, "split": described.get("split")}
        module = cls(**{**begun, **checkpoint.get("hyper_parameters", {}), **kwargs})
        module.origin = described.get("origin")
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"], strict=strict is not False)
        return module.to(map_location) if map_location is not None else module

    def setup(self, stage: str) -> None:
        """Notes whether some of the faces lack a label."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, AgeGenderDataModule):
            self.masks = not data.index.complete

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Answers for images `[batch, channels, size, size]`: ages in years `[batch]`, p_female `[batch]`."""
        outputs = self.network(images)
        return self.network.years(outputs), self.network.p_female(outputs)

    def _metrics(self, stage: str) -> StageMetrics:
        return {"train": self.train_metrics, "val": self.val_metrics, "test": self.test_metrics}[stage]

    def _step(self, batch: Batch, stage: str) -> tuple[Tensor, Outputs, Step]:
        """Measures one batch; returns the loss to train on, the network's outputs, and what was measured."""
        network = self.network
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        flip = self.tta == "flip" and self.trainer.state.fn != TrainerFn.FITTING
        features = batch.get("features")
        if features is not None and not flip:
            outputs = network.answer(features)
        else:
            outputs = network.flip_averaged(images) if flip else network(images)
        if self.masks:
            age_loss, gender_loss, known = known_losses(network, outputs, batch)
        else:
            age_loss = network.coding.loss(outputs.age, batch["age"])
            gender_loss, known = network.gender_loss(outputs, batch["gender"]), None
        soft = None
        if stage == "train" and self.soft_targets is not None:
            soft = self.soft_targets.losses(network, outputs, batch["row"])
        loss = self._balanced(age_loss, gender_loss, known, soft)
        share, own = batch.get("share"), loss
        if share is not None:
            own = self._part_of_loss(share, age_loss, gender_loss, known, soft)
            if known is not None:  # the parts' own losses say nothing of the whole's: each is over its own labels
                loss = added_up(own.detach()) / self.trainer.world_size
        with torch.no_grad():
            losses = torch.stack((loss, age_loss, gender_loss))
            years, p_female = network.years(outputs), network.p_female(outputs)
            step = Step(losses, years, batch["age"], p_female, batch["gender"], known=known)
            if network.coding.classes:
                step = step._replace(age_class_pred=outputs.age.argmax(1), age_class=network.coding.label(batch["age"]))
        self._metrics(stage).update(step if share != 0 else step.of_nobody())
        return own, outputs, step

    def _balanced(
        self, age_loss: Tensor, gender_loss: Tensor, known: Tensor | None, soft: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Returns the loss of the labels and, if there are teachers, of their answers, which no face lacks."""
        if soft is None or self.soft_targets is None:
            loss: Tensor = self.balance(age_loss, gender_loss, known)
            return loss
        mixed = self.soft_targets.mixed
        loss = self.balance(mixed(age_loss, soft[0]), mixed(gender_loss, soft[1]))
        return loss

    def _part_of_loss(
        self,
        share: float,
        age_loss: Tensor,
        gender_loss: Tensor,
        known: Tensor | None,
        soft: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Returns this process's loss, such that the mean over processes is the loss of all their faces together.

        DDP takes the mean of the gradients, whether one process had more faces or more known labels than another.
        """
        ages: float | Tensor = share
        genders: float | Tensor = share
        if known is not None:
            own, known = known * (share > 0), added_up(known * (share > 0))
            ages, genders = (own * self.trainer.world_size / known.clamp(min=1))[1:]
        soft = None if soft is None else (share * soft[0], share * soft[1])
        return self._balanced(ages * age_loss, genders * gender_loss, known, soft)

    def _calibrates(self) -> bool:
        """Tells whether this validation is to teach the network how sure it may be.

        A network that is only measured keeps the calibration that it was trained with, unless it has none.
        """
        return self.trainer.state.fn == TrainerFn.FITTING or self.network.calibration is None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Makes this step's dropout a function of seed, epoch and step (see `step_seed`)."""
        seed = step_seed(self.seed, self.current_epoch, batch_idx, "step", self.global_rank)
        # torch.manual_seed would seed every kind of device there could be, and costs a millisecond
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index].manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the batch's loss."""
        return self._step(batch, "train")[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns the answers per face, each `[batch]` (see `callbacks.Answers`)."""
        _, outputs, step = self._step(batch, "val")
        if self._calibrates():
            self._validated.append(self._certainty(outputs, batch))
            self._validated_corrupted.append(self._certainty(self._corrupted(batch), batch))
        return {"row": batch["row"], "age_pred": step.age_pred, "p_female": step.p_female}

    def _corrupted(self, batch: Batch) -> Outputs:
        """Answers for the batch's faces under harmless changes, one change each."""
        if (features := batch.get("corrupted")) is not None:
            return self.network.answer(features)
        images = corrupt_any(batch["image"], batch["row"]).contiguous(memory_format=torch.channels_last)
        outputs: Outputs = self.network(images)
        return outputs

    def _certainty(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns what the calibration is fitted to, and the faces' rows, `[batch, 6]`."""
        network = self.network
        sure = network.years(outputs), network.stated(outputs), network.gender_logit(outputs)
        return torch.stack([column.double() for column in (*sure, batch["age"], batch["gender"], batch["row"])], 1)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Returns the answers per face, each `[batch]`, and how sure they are."""
        _, outputs, step = self._step(batch, "test")
        low, high = self.network.age_interval(outputs)
        spread = {"age_std": self.network.age_std(outputs), "age_low": low, "age_high": high}
        return {"row": batch["row"], "age_pred": step.age_pred, **spread, "p_female": step.p_female}

    def on_train_epoch_end(self) -> None:
        """Logs the training figures; in the epoch of a mid-epoch resume they cover its rest only."""
        self._log_metrics("train")

    def on_validation_epoch_end(self) -> None:
        """Logs the validation figures, and fits the calibration to the validation faces."""
        self._log_metrics("val")
        if self._calibrates():
            clean, corrupted = map(_each_once, (self._validated, self._validated_corrupted))
            answers, stated, logits, age, gender = clean.T
            self.network.calibration = fit_calibration(answers, stated, logits, age, gender, corrupted)
        self._validated.clear()
        self._validated_corrupted.clear()

    def on_test_epoch_end(self) -> None:
        """Logs the test figures."""
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        for name, value in self._metrics(stage).compute().items():
            self.log(name, value, prog_bar=name in ("val/age_mae", "val/gender_acc"))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig | torch.optim.Optimizer:
        """Builds the optimizer and, if there is one, the scheduler of its learning rates."""
        settings = self.optim["optimizer"]
        factor = self.optim.get("trunk_factor", 1.0)
        groups = parameter_groups(self.network, self.balance.parameters(), settings, factor, self._dimensions)
        optimizer = build_optimizer(settings, groups)
        scheduler: Mapping[str, Any] | None = self.optim.get("scheduler")
        if scheduler is None:
            return optimizer
        length = self.trainer.estimated_stepping_batches
        steps, epochs = (int(length) if length < float("inf") else 0), self.trainer.max_epochs or 0
        return {"optimizer": optimizer, "lr_scheduler": build_scheduler(scheduler, optimizer, steps, epochs)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a stranger needs to use the checkpoint without this run's config; see `prediction/predictor.py`."""
        checkpoint["agegender"] = {
            "version": __version__,
            "network": self.hparams["network"],
            "labels": {"gender": ["male", "female"], "age": "years"},
            "split": self.hparams["split"],
            "origin": self.origin,
            "calibration": None if self.network.calibration is None else asdict(self.network.calibration),
            **({} if self.soft_targets is None else {"teachers": self.soft_targets.teachers}),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the calibration that belongs to the weights."""
        self.network.calibration = read_calibration(checkpoint)


def _each_once(parts: list[Tensor]) -> NDArray[np.float64]:
    """Returns the rows `[faces, 5]` of all processes in the faces' order, each face once, whoever had it."""
    answers = gathered(torch.cat(parts)).cpu().numpy()
    _, each = np.unique(answers[:, -1], return_index=True)
    once: NDArray[np.float64] = answers[each, :-1]
    return once
