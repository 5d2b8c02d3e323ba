"""Hardware of a training: whether the accelerator is there, and whether it computes fast in the precision."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl
import torch

from agegender.errors import AgeGenderError, require
from agegender.models.trunks.onednn import supports_dtype

log = logging.getLogger(__name__)


def check_hardware(trainer: dict[str, Any]) -> None:
    """Check that the accelerator of `conf/trainer` exists.

    Raises:
        AgeGenderError: It doesn't, or this PyTorch wasn't built for it.
    """
    accelerator = trainer.get("accelerator", "auto")
    require(
        "fsdp" not in str(trainer.get("strategy")).lower() or (torch.cuda.is_available() and accelerator != "cpu"),
        "trainer=fsdp requires NVIDIA GPUs, but there is none or trainer.accelerator=cpu: use trainer=ddp",
    )
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    kinds = {"gpu": ("cuda", "mps"), "cuda": ("cuda",), "mps": ("mps",)}.get(str(accelerator))
    if kinds and not any(available[kind] for kind in kinds):
        advice = "use trainer.accelerator=gpu for the one there is" if any(available.values()) else "use trainer=cpu"
        missing = {"cuda": "no NVIDIA GPU", "mps": "no Apple GPU"}.get(str(accelerator), "no GPU")
        raise AgeGenderError(
            f"trainer.accelerator={accelerator}: PyTorch {torch.__version__} sees {missing}; {advice}, or check the "
            "driver (nvidia-smi) and that this PyTorch was built for it"
        )


def warn_about_slow_precision(trainer: pl.Trainer) -> None:
    """Log a warning if mixed precision is slower than float32 on the training device.

    PyTorch computes convolutions in bfloat16 on any device. Where the device has no instructions for them, they take
    many times as long as in float32 (`docs/performance.md`).
    """
    device, precision = trainer.strategy.root_device, str(trainer.precision)
    if precision != "bf16-mixed":
        return
    if device.type == "cpu" and torch.backends.mkldnn.is_available() and not supports_dtype(torch.bfloat16):  # type: ignore[no-untyped-call]
        log.warning(
            "trainer.precision=bf16-mixed is many times slower than float32 on this CPU, which has no bfloat16: use "
            "trainer.precision=32-true"
        )
    elif device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        log.warning("trainer.precision=bf16-mixed: %s has no bfloat16: use trainer.precision=16-mixed", name)
