"""ModelCheckpoint that records the run's best checkpoint, for run folders that are moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from agegender.runs.checkpoint import write_best


class RelocatableCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, for runs whose folder was moved or copied before a resume.

    Lightning drops the best score if `dirpath` has changed, and a worse epoch would replace the best checkpoint. With
    `run_dir`, the name of the best checkpoint is recorded there (see `runs.checkpoint.find_checkpoint`), so that it may
    have any name and lie anywhere.
    """

    def __init__(self, *args: Any, run_dir: str | None = None, **kwargs: Any):
        """Set the run's folder; all other arguments are ModelCheckpoint's."""
        super().__init__(*args, **kwargs)
        self.run_dir = run_dir

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save a checkpoint if it is time, and record the best one if it changed, on rank 0."""
        before = self.best_model_path, self.best_model_score
        super().on_validation_end(trainer, pl_module)
        changed = before != (self.best_model_path, self.best_model_score)
        if self.run_dir is not None and changed and self.best_model_path and trainer.is_global_zero:
            write_best(Path(self.run_dir), Path(self.best_model_path))

    def format_checkpoint_name(
        self, metrics: dict[str, Any], filename: str | None = None, ver: int | None = None, prefix: str | None = None
    ) -> str:
        """Return the path of a checkpoint, in which `{epoch}` counts from 1 as in logs and reports."""
        counted = metrics | ({"epoch": metrics["epoch"] + 1} if "epoch" in metrics else {})
        return super().format_checkpoint_name(counted, filename, ver, prefix)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with every path moved to the current `dirpath`."""

        def here(path: str) -> str:
            return str(Path(self.dirpath or "") / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {"dirpath": self.dirpath, "best_k_models": best, **{name: here(state_dict[name]) for name in paths}}
        super().load_state_dict({**state_dict, **moved})
