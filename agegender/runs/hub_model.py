"""Read a model that is shared as `model.safetensors` and `config.json`, from a folder or from the Hugging Face Hub.

The layout is that of `huggingface_hub.PyTorchModelHubMixin`: the keys of `config.json` are the arguments of
`MultiTaskNet`, and `model.safetensors` has its weights. The key `agegender` adds what else a checkpoint holds.
`agegender.weights.hub_folder` writes it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agegender.errors import AgeGenderError, missing_extra, require

WEIGHTS, CONFIG = "model.safetensors", "config.json"
OURS = "agegender"  # key of config.json with what is no argument of the network
FORMAT = 1  # of the values below OURS
# `pathlib.Path` turns `//` into `/`.
_ADDRESS = re.compile(r"hf:/{1,2}(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def is_hub_address(given: str | Path) -> bool:
    """Return whether a value of `weights=` is the address of a repository on the hub, such as `hf://owner/name`."""
    return str(given).startswith("hf:/")


def download(address: str) -> Path:
    """Download a model's two files from the hub into the cache of `huggingface_hub`, unless they are there.

    Args:
        address: `hf://owner/name`, or `hf://owner/name@revision` for a branch, a tag or a commit.

    Returns:
        The folder of the files, both of the same commit.

    Raises:
        AgeGenderError: The address is not well-formed, the package is missing, or a file can't be downloaded.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise AgeGenderError(f"weights={address} is not an address of the hub: write hf://owner/name[@revision]")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise missing_extra(f"weights={address}", error, "hub") from None
    try:
        config = Path(hf_hub_download(parts["name"], CONFIG, revision=parts["revision"]))
        # The cache keeps a commit's files in a folder of its name; the branch may move between the two downloads.
        hf_hub_download(parts["name"], WEIGHTS, revision=config.parent.name)
    except Exception as error:  # of the hub, of the HTTP client of its release, or of the disk
        raise AgeGenderError(f"{address} can't be downloaded: {_reason(error, parts)}") from None
    return config.parent


def _reason(error: Exception, parts: re.Match[str]) -> str:
    """Return the cause of a failed download, and the next step, in one line."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "its owner restricts the access; ask for it on the repository's page, then log in: hf auth login"
    if isinstance(error, RepositoryNotFoundError):
        login = "if it is private, log in: hf auth login"
        return f"there is no public repository {parts['name']}; check the name, or {login}"
    if isinstance(error, RevisionNotFoundError):
        return f"{parts['name']} has no revision {parts['revision']}; give a branch, a tag or a commit"
    if isinstance(error, LocalEntryNotFoundError):
        return "the hub can't be reached, and the model is not in the cache; check the connection, or give a folder"
    if isinstance(error, EntryNotFoundError):
        return f"the repository lacks {CONFIG} or {WEIGHTS}, so it has no model of `agegender bundle format=hub`"
    return f"{' '.join(str(error).split())[:200] or type(error).__name__}; try again, or give a folder"


def files_of(weights: Path) -> tuple[Path, ...]:
    """Return the files that a model consists of: a checkpoint is one file, a shared model two."""
    return (weights, weights.with_name(CONFIG)) if weights.suffix == ".safetensors" else (weights,)


def load_hub_model(path: Path) -> dict[str, Any]:
    """Load `model.safetensors` and the `config.json` beside it as a checkpoint; neither can contain code.

    Args:
        path: The file of the weights.

    Returns:
        A checkpoint as of `bundle`: the description of the network in `agegender`, and its `state_dict`.

    Raises:
        AgeGenderError: A file is missing or damaged, or the model is not one of `agegender bundle format=hub`.
    """
    try:
        from safetensors.torch import load
    except ImportError as error:
        raise missing_extra(f"weights={path}", error, "hub") from None
    config = path.with_name(CONFIG)
    described = _read_config(config)
    ours = dict(described.pop(OURS))
    digest, calibration = ours.pop("sha256", None), ours.pop("calibration", {})
    ours.pop("results", None)  # for people and the page, see `read_results`
    require(isinstance(calibration, Mapping), f"{config} is damaged: its calibration is no mapping; copy it again")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AgeGenderError(f"{path} can't be read ({error.strerror}); copy it again") from None
    intact = hashlib.sha256(content).hexdigest() == digest
    require(intact, f"{path} is damaged, or not the file that {config} describes: its SHA-256 differs; copy both again")
    try:
        tensors = load(content)
    except Exception as error:  # safetensors raises errors of several types for damaged files
        raise AgeGenderError(f"{path} is not a safetensors file ({' '.join(str(error).split())[:150]})") from None
    state = {f"network.{name}": value for name, value in {**tensors, **calibration}.items()}
    return {"agegender": {**ours, "network": described}, "state_dict": state}


def read_results(weights: Path) -> dict[str, Any]:
    """Return the results in a shared model's `config.json`; empty if there are none.

    Raises:
        AgeGenderError: The file is missing or damaged, or has no values of `agegender bundle`.
    """
    results = _read_config(weights.with_name(CONFIG))[OURS].get("results")
    return dict(results) if isinstance(results, dict) else {}


def _read_config(path: Path) -> dict[str, Any]:
    """Read `config.json`.

    Raises:
        AgeGenderError: The file is missing or damaged, or has no values of `agegender bundle`.
    """
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AgeGenderError(f"{path} can't be read ({error.strerror}): it belongs beside {WEIGHTS}") from None
    except (ValueError, RecursionError) as error:
        raise AgeGenderError(f"{path} is damaged ({' '.join(str(error).split())[:100]}); copy it again") from None
    ours = described.get(OURS) if isinstance(described, dict) else None
    if not isinstance(ours, dict):
        raise AgeGenderError(f"{path} is not of an agegender model: it was not written by agegender bundle")
    version = ours.pop("format", None)
    require(version == FORMAT, f"{path} has the format {version!r}, not {FORMAT}: update agegender")
    return dict(described)
