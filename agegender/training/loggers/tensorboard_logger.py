"""A TensorBoard logger whose first screen shows the curves of a training."""

from __future__ import annotations

from collections.abc import Mapping

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

# TensorBoard opens the first two groups of scalars in the order of their names, which are `train` and `val`; so the
# metrics of the best checkpoint, of which each is a single point for the HPARAMS tab, have a name after these.
BEST = "z_best"


class CurvesLogger(TensorBoardLogger):
    """Lightning's TensorBoardLogger without charts of a single point or none: `epoch` and the test metrics.

    The test metrics are in the HPARAMS tab; a learning rate is the curve `train/lr-...`.
    """

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the values that are curves."""
        curves = {name: value for name, value in metrics.items() if name != "epoch" and not name.startswith("test/")}
        renamed = {f"train/{name}" if name.startswith("lr-") else name: value for name, value in curves.items()}
        super().log_metrics(renamed, step)
