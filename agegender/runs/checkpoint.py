"""Find and load checkpoints, without Lightning and without running code from the file."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from agegender.errors import AgeGenderError, require
from agegender.runs.hub_model import WEIGHTS, download, is_hub_address, load_hub_model
from agegender.system.files import atomic_write, raise_write_errors

_WEIGHTS = Path(__file__).parents[1] / "weights"
# The weights in the package, made by `agegender bundle`. A file or folder of the same name is given as `./small`.
BUNDLED_WEIGHTS = {"default": _WEIGHTS / "face.ckpt", "face": _WEIGHTS / "face.ckpt", "small": _WEIGHTS / "small.ckpt"}


def find_checkpoint(given: str | Path) -> Path:
    """Return the checkpoint of a `weights` setting.

    Args:
        given: `default`, `face` or `small` for weights in the package; a checkpoint; a run folder (its best checkpoint,
            else its last); a folder of `agegender bundle format=hub`; a folder of runs (the newest best checkpoint); or
            `hf://owner/name[@revision]` for a model on the Hugging Face Hub, which is downloaded.

    Raises:
        AgeGenderError: There is no checkpoint, or the file is an exported model.
    """
    if is_hub_address(given):
        return download(str(given)) / WEIGHTS
    path = BUNDLED_WEIGHTS.get(str(given), Path(given))
    if str(path).startswith("~") and not path.exists():
        path = Path(os.path.expanduser(path))
    if path.is_dir():
        last = path / "checkpoints" / "last.ckpt"
        if (best := best_of(path)) is not None:
            return best
        if last.is_file():
            print(f"warning: {path} has no best checkpoint: {last} is used", file=sys.stderr)
            return last
        if (path / WEIGHTS).is_file():
            return path / WEIGHTS
        runs = best_checkpoints(path, "**/")
        if runs:
            return runs[-1]
        raise AgeGenderError(f"{path} has no best checkpoint; give a run's folder or a checkpoint")
    if not path.is_file():
        raise AgeGenderError(
            f"no model at {path.resolve()}; give weights=<run folder or checkpoint>, or weights=default for the "
            "bundled weights"
        )
    require(
        path.suffix != ".onnx", f"{path} is an exported model, not a checkpoint; use it in predict with backend=onnx"
    )
    return path


BEST = "best_checkpoint.txt"  # file in a run's folder with the path of its best checkpoint


def write_best(run: Path, checkpoint: Path) -> None:
    """Record the best checkpoint of a run, by its path relative to the run's folder, so that the run can be moved."""
    with raise_write_errors("the name of the best checkpoint", run / BEST), atomic_write(run / BEST, "w") as file:
        file.write(os.path.relpath(checkpoint, run) + "\n")


def best_of(run: Path) -> Path | None:
    """Return the best checkpoint of a run; None if it has none yet, or, with a warning, if the file is gone."""
    if not (run / BEST).is_file():
        best = run / "checkpoints" / "best.ckpt"
        return best if best.is_file() else None
    best = run / (run / BEST).read_text(encoding="utf-8").strip()
    if not best.is_file():
        print(f"warning: {run / BEST} names {best}, which does not exist", file=sys.stderr)
        return None
    return best


def best_checkpoints(folder: Path, pattern: str = "*/") -> list[Path]:
    """Return the best checkpoints of the runs below a folder, the newest last."""
    return list(trained_runs(folder, pattern).values())


def trained_runs(folder: Path, pattern: str = "**/") -> dict[Path, Path]:
    """Return the best checkpoint of each run below a folder that has one, the newest last."""
    runs = {path.parent for path in folder.glob(f"{pattern}{BEST}")}
    runs |= {path.parent.parent for path in folder.glob(f"{pattern}checkpoints/best.ckpt")}
    found = [(run, best) for run in sorted(runs) if (best := best_of(run)) is not None]
    return dict(sorted(found, key=lambda item: item[1].stat().st_mtime))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint with `weights_only=True`, on the CPU, after verifying its checksums.

    A file with the extension .safetensors is read with the `config.json` beside it, see `hub_model`.

    Returns:
        Lightning's dictionary, with the description of the network in `agegender` and its weights in `network`.

    Raises:
        AgeGenderError: The file is damaged, contains more than weights, or is not an agegender checkpoint.
    """
    checkpoint = load_hub_model(path) if path.suffix == ".safetensors" else _load_archive(path)
    if not (isinstance(checkpoint, dict) and {"agegender", "state_dict"} <= set(checkpoint)):
        raise AgeGenderError(f"{path} is not an agegender checkpoint: it has no description of the network")
    network = checkpoint["agegender"].get("network") if isinstance(checkpoint["agegender"], dict) else None
    is_older = isinstance(network, dict) and not isinstance(network.get("tasks"), dict)
    require(not is_older, f"{path} is of an older version, whose format is not supported: train the model again")
    prefix = "network."
    state = checkpoint["state_dict"]
    checkpoint["network"] = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    return checkpoint


def _load_archive(path: Path) -> dict[str, Any]:
    """Load a checkpoint in PyTorch's format; see `load_checkpoint`."""
    _verify_checksums(path)
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise AgeGenderError(
            f"{path} can't be loaded safely as weights ({reason}); it is damaged, or not an agegender checkpoint"
        ) from None
    except Exception as error:  # torch.load raises errors of many types for damaged files
        raise AgeGenderError(f"{path} is damaged or not a checkpoint ({' '.join(str(error).split())[:150]})") from None
    return checkpoint


def _verify_checksums(path: Path) -> None:
    """Verify the CRC-32 checksums of a checkpoint's ZIP archive, which PyTorch ignores; about 1 ms per MB.

    A file that is no archive passes: `torch.load` refuses it.

    Raises:
        AgeGenderError: A part of the archive is damaged.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            # PyTorch leaves the memory of an entry with a folder's attribute as it was.
            folders = (info.filename for info in archive.infolist() if info.is_dir() or info.external_attr & 0x10)
            damaged = next(folders, None) or archive.testzip()
    except Exception as error:  # a damaged directory of the archive raises errors of many types
        raise AgeGenderError(f"{path} is damaged ({' '.join(str(error).split())[:150]})") from None
    require(damaged is None, f"{path} is damaged: its part {damaged} is not what was saved")
