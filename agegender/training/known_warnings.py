"""Warnings of Lightning and PyTorch that are the same for every run, or don't apply to ours."""

from __future__ import annotations

import logging
import warnings


def silence_known_warnings() -> None:
    """Filter these warnings for the rest of the process."""
    for name in ("pytorch.utilities.rank_zero", "pytorch.accelerators.cuda", "fabric.utilities.distributed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    # The cached loader needs no workers (see AgeGenderDataModule), and a resumed run continues in its folder.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")
    # Steps count through the epochs, and each epoch's metrics are logged at its end anyway.
    warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", r".*module\(s\) in eval mode at the start of training.*")  # frozen trunk
    # Metrics are the same on every rank (StageMetrics): there is nothing to synchronize.
    warnings.filterwarnings("ignore", ".*sync_dist=True.*")
    # For kernels of one channel, both strides mean the same layout.
    warnings.filterwarnings("ignore", ".*Grad strides do not match bucket view strides.*")
    warnings.filterwarnings("ignore", ".*IterableDataset.*")  # LitData splits the data over its workers
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6 uses an API that PyTorch 2.15 deprecates
