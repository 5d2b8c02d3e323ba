"""ModelCheckpoint for run folders that are moved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class RelocatableCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, for runs whose folder was moved or copied before a resume.

    Lightning drops the best score if `dirpath` has changed, and a worse epoch would replace `best.ckpt`.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with every path moved to the current `dirpath`."""

        def here(path: str) -> str:
            return str(Path(self.dirpath or "") / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {"dirpath": self.dirpath, "best_k_models": best, **{name: here(state_dict[name]) for name in paths}}
        super().load_state_dict({**state_dict, **moved})
