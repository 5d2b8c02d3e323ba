"""Write a run's best weights as a folder for the Hugging Face Hub: `agegender bundle format=hub run=... out=folder`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from agegender.errors import missing_extra, require
from agegender.runs.hub_model import CONFIG, FORMAT, OURS, WEIGHTS
from agegender.system.files import atomic_write
from agegender.weights.card import write_card
from agegender.weights.run_record import read_run

CARD = "README.md"


def bundle_hub(run: Path, out: Path) -> Path:
    """Write a run's best weights, unchanged, in the layout of `huggingface_hub.PyTorchModelHubMixin`.

    The files are `model.safetensors`, `config.json` (see `agegender.runs.hub_model`) and the model card `README.md`.
    A folder of an earlier bundle is replaced; an edited card, too.

    Args:
        run: Folder of a tested run; see `bundle`.
        out: Output folder: a new one, an empty one, or one of an earlier bundle.

    Returns:
        `out`.

    Raises:
        AgeGenderError: The package safetensors is missing, the folder has other contents, or see `bundle`.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise missing_extra("format=hub", error, "hub") from None
    require(not out.exists() or out.is_dir(), f"out={out} is a file: format=hub writes a folder")
    foreign = out.is_dir() and any(out.iterdir()) and not (out / CONFIG).is_file()
    require(not foreign, f"out={out} has other files: give a new folder, or one of an earlier bundle")
    checkpoint, record = read_run(run)
    state = checkpoint["network"]
    tensors = {  # copies: safetensors refuses tensors that share memory
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    content = save(tensors, {"format": "pt"})
    described = dict(checkpoint["agegender"])
    network = described.pop("network")
    described |= {
        "format": FORMAT,
        "sha256": hashlib.sha256(content).hexdigest(),
        "calibration": {name: value for name, value in state.items() if name not in tensors},
        "results": record,
    }
    with atomic_write(out / WEIGHTS) as file:
        file.write(content)
    with atomic_write(out / CONFIG, "w", encoding="utf-8") as file:
        json.dump({**network, OURS: described}, file, indent=2, ensure_ascii=False)
        file.write("\n")
    with atomic_write(out / CARD, "w", encoding="utf-8") as file:
        file.write(write_card(out.resolve().name, checkpoint["agegender"], record))
    return out
