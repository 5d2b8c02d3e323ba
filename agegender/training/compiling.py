"""`compile=auto|true|false`: whether PyTorch compiles the network, in place, so that checkpoints don't notice."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from typing import Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from agegender.errors import AgeGenderError

log = logging.getLogger(__name__)

Wish = Literal["auto"] | bool

# Compiling takes about a minute; a shorter training is over before that has paid.
STEPS_WORTH_IT = 50_000


class CompileNetwork(Callback):
    """Has PyTorch compile the network at its first batches; no key of its weights changes by it."""

    def __init__(self, wish: Wish = "auto"):
        """Says whether.

        Args:
            wish: True, False, or `auto`: on a GPU, if the training is long enough; never on a CPU, where the networks
                here train no faster compiled (docs/performance.md).
        """
        self.wish: Wish = wish

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Decides, now that the device and the number of steps are known.

        Raises:
            AgeGenderError: It is wished for, and what compiling needs isn't there.
        """
        device = pl_module.device.type
        lacking = _lacking(device)
        if self.wish is True and lacking:
            raise AgeGenderError(f"compile=true: {lacking}; install it, or use compile=false")
        pays = device == "cuda" and not lacking and trainer.estimated_stepping_batches >= STEPS_WORTH_IT
        if self.wish is True or (self.wish == "auto" and pays):
            log.info("compiling the network at its first batches: that takes a minute or two")
            pl_module.network.compile()  # type: ignore[union-attr]  # AgeGenderModule's


def _lacking(device: str) -> str:
    """Returns what PyTorch's compiler misses here for this kind of device, or nothing."""
    if device == "cuda":
        return "" if importlib.util.find_spec("triton") else "PyTorch's compiler needs Triton for a GPU"
    found = any(map(shutil.which, ("c++", "g++", "clang++", "cl")))
    return "" if found else "PyTorch's compiler needs a C++ compiler for a CPU, such as g++"
