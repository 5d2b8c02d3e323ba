"""Finds and reads checkpoints, and nothing else: no Lightning, and no code from inside the file is ever run."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from agegender.errors import AgeGenderError, require
from agegender.tasks.calibration import Calibration

_WEIGHTS = Path(__file__).parents[1] / "weights"
# The weights that come with the package (`agegender bundle`); `./small` is a file or folder of that name.
BUNDLED_WEIGHTS = {"default": _WEIGHTS / "face.ckpt", "face": _WEIGHTS / "face.ckpt", "small": _WEIGHTS / "small.ckpt"}


def find_checkpoint(given: str | Path) -> Path:
    """Resolves what a user gives as weights.

    Args:
        given: `default` or `face`, or `small`, for the weights that come with the package, a checkpoint, a run's folder
            (its best checkpoint is taken, else its last), or a folder of runs (the newest best checkpoint).

    Raises:
        AgeGenderError: There is none, or it is an exported model.
    """
    path = BUNDLED_WEIGHTS.get(str(given), Path(given))
    if str(path).startswith("~") and not path.exists():
        path = Path(os.path.expanduser(path))
    if path.is_dir():
        for name in ("best.ckpt", "last.ckpt"):
            if (path / "checkpoints" / name).is_file():
                return path / "checkpoints" / name
        runs = _best_checkpoints(path)
        if runs:
            return runs[-1]
        raise AgeGenderError(f"{path} holds no checkpoints/best.ckpt; give a run's folder or a checkpoint")
    if not path.is_file():
        where = path.resolve()
        raise AgeGenderError(
            f"no model at {where}; give weights=<run folder or checkpoint>, or weights=default for the ones shipped"
        )
    require(
        path.suffix != ".onnx", f"{path} is an exported model, no checkpoint; predict.py takes it with backend=onnx"
    )
    return path


def _best_checkpoints(folder: Path) -> list[Path]:
    """Returns the best checkpoints of the runs below a folder, the newest last."""
    return sorted(folder.glob("**/checkpoints/best.ckpt"), key=lambda path: path.stat().st_mtime)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint with `weights_only=True`, on the CPU.

    Returns:
        Lightning's dictionary; `agegender` describes the network, `network` holds its weights.

    Raises:
        AgeGenderError: The file is damaged, unsafe, or not one of ours.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        described = isinstance(checkpoint, dict) and {"agegender", "state_dict"} <= set(checkpoint)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise AgeGenderError(
            f"{path} can't be loaded safely as weights ({reason}); it is damaged or not ours"
        ) from None
    except Exception as error:  # PyTorch's reader trips over a damaged file in any way there is
        raise AgeGenderError(f"{path} is damaged or not a checkpoint ({' '.join(str(error).split())[:150]})") from None
    if not described:
        raise AgeGenderError(f"{path} is not an agegender checkpoint: it doesn't describe its network")
    network = checkpoint["agegender"].get("network") if isinstance(checkpoint["agegender"], dict) else None
    older = isinstance(network, dict) and not isinstance(network.get("trunk"), dict)
    require(not older, f"{path} is of an older version, which named its trunk in another way: train it anew")
    prefix = "network."
    state = checkpoint["state_dict"]
    checkpoint["network"] = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    return checkpoint


def load_verified_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint, and holds every byte of it against the checksums in it, which PyTorch passes over.

    Raises:
        AgeGenderError: See `load_checkpoint`; or the disk gave back something else than was written.
    """
    checkpoint = load_checkpoint(path)
    if zipfile.is_zipfile(path):  # not so in PyTorch's oldest format, which has no checksums
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
        require(changed is None, f"{path} is damaged: {changed} in it doesn't match its checksum")
    return checkpoint


def read_calibration(checkpoint: dict[str, Any]) -> Calibration | None:
    """Returns what a checkpoint says about how far its answers can be trusted; None before its first validation.

    Raises:
        AgeGenderError: It is not a calibration of ours.
    """
    saved = checkpoint["agegender"].get("calibration")
    return None if saved is None else Calibration.from_dict(saved)
