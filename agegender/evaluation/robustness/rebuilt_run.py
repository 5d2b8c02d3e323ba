"""Rebuild a run's network and its test or validation faces from the run's folder, for further evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from omegaconf import DictConfig, OmegaConf

from agegender.config.allowlist import accepted_kwargs, kwargs_of
from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.index.protocol import protocol_of
from agegender.data.loading.dataset import FaceDataset
from agegender.data.settings import check_data, streams
from agegender.data.sources.synthetic import SYNTHETIC_NOTE
from agegender.distributed.launcher import script
from agegender.errors import AgeGenderError, require
from agegender.evaluation.statistics.bootstrap import number_clusters
from agegender.evaluation.statistics.metrics import Integers
from agegender.prediction.backends.backend import Tta
from agegender.prediction.backends.torch_backend import TorchBackend
from agegender.runs.checkpoint import BUNDLED_WEIGHTS, find_checkpoint
from agegender.runs.hub_model import is_hub_address

_SPLIT_RULE = (
    *("duplicates", "split", "split_seed", "test_fraction", "val_fraction", "fold", "folds"),
    *("age_range", "limit"),
)


@dataclass(frozen=True)
class Origin:
    """The weights of a run and its recorded settings.

    Attributes:
        name: The run as the user gave it.
        checkpoint: The weights to evaluate.
        folder: Folder of the run; None for weights that belong to no run.
        data: Arguments of the datamodule; empty if they are not recorded.
        tta: Test-time augmentation of the run's own test.
    """

    name: str
    checkpoint: Path
    folder: Path | None
    data: Mapping[str, Any]
    tta: Tta


@dataclass(frozen=True)
class RebuiltRun:
    """A network ready for inference, and its faces.

    Attributes:
        origin: The run or the weights that it was built from.
        network: On its device, in evaluation mode and float32.
        faces: The test or validation faces.
        clusters: `[faces]`, cluster (photograph) of each face, numbered from 0.
        duplicates_known: Whether copies were searched for; if not, each file is a cluster of its own.
        place: Folder of the images, or `DRAWN` for synthetic faces.
        warnings: Reasons not to trust the metrics, in sentences.
        tolerances: Tolerance of the cumulative score by task, for tasks that have one.
    """

    origin: Origin
    network: TorchBackend
    faces: FaceDataset
    clusters: Integers
    duplicates_known: bool
    place: str
    warnings: list[str]
    tolerances: dict[str, float]


def find_origin(run: str) -> Origin:
    """Find the weights of a run and its recorded data settings.

    Args:
        run: A run's folder, a folder of runs (the one with the newest best checkpoint is taken), a checkpoint, or a
            name of bundled weights, such as `default`.

    Raises:
        AgeGenderError: There are no such weights, or the run's recorded config is damaged.
    """
    given = Path(run)
    settings = _settings(given) if given.is_dir() and run not in BUNDLED_WEIGHTS else {}
    folder: Path | None = given
    if settings and not settings.get("fit", True) and settings.get("weights"):
        checkpoint = find_checkpoint(settings["weights"])  # a test-only run has no checkpoint itself
    else:
        checkpoint = _checkpoint_of(run)
        folder = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else None
        settings = _settings(folder) if folder else {}
    return Origin(run, checkpoint, folder, settings.get("data") or {}, settings.get("tta", "none"))


def _checkpoint_of(run: str) -> Path:
    try:
        return find_checkpoint(run)
    except AgeGenderError as error:
        if Path(run).exists() or run in BUNDLED_WEIGHTS or is_hub_address(run):
            raise
        raise AgeGenderError(
            f"run={run} does not exist; give a run's folder (logs/...), a checkpoint, or bundled weights: "
            f"{', '.join(BUNDLED_WEIGHTS)}"
        ) from error


def _settings(folder: Path) -> dict[str, Any]:
    """Return the settings `fit`, `weights`, `tta` and `data` of a run; empty if it has no recorded config."""
    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        return {}
    try:
        config = OmegaConf.load(path)
        chosen = {name: OmegaConf.select(config, name) for name in ("fit", "weights", "tta", "data")}
        settings = {
            name: OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node
            for name, node in chosen.items()
            if node is not None
        }
    except Exception as error:  # PyYAML's and OmegaConf's exceptions have no common base class
        reason = " ".join(str(error).split())[:150]
        raise AgeGenderError(f"{path} is damaged ({reason}): give another run, or the checkpoint itself") from None
    require(isinstance(settings.get("data", {}), dict), f"{path} is damaged: its data is not a mapping of settings")
    return settings


def rebuild(
    origin: Origin,
    data_dir: str | None = None,
    split: Literal["test", "val"] = "test",
    limit: int | None = None,
    tta: Tta | None = None,
    device: str = "auto",
) -> RebuiltRun:
    """Load the network and find its test or validation faces.

    Args:
        origin: See `find_origin`.
        data_dir: Current folder of the images; None for the folder in the run's settings.
        split: Part of the split to take.
        limit: Maximum number of faces, a fixed subset; None for all.
        tta: Test-time augmentation; None for that of the run's own test.
        device: See `Predictor`.

    Raises:
        AgeGenderError: The faces can't be found again, or there are none.
    """
    network = TorchBackend(origin.checkpoint, device, tta or origin.tta)
    data = _build_data(origin, network, data_dir)
    data.prepare_data()
    data.setup()
    faces = data.split(split)
    require(len(faces) > 0, f"run={origin.name}: {data.index.folder} has no {split} face; give another data_dir=")
    if limit is not None:
        ranked = sorted(faces.rows.tolist(), key=lambda row: (data.index.digests[row], row))
        faces = FaceDataset(data.index, np.sort(np.array(ranked[:limit], dtype=np.int64)), faces.pixels)
    index = data.index
    return RebuiltRun(
        origin=replace(origin, tta=network.tta),
        network=network,
        faces=faces,
        clusters=number_clusters([index.names[index.duplicates[row]] for row in faces.rows]),
        duplicates_known=data.split_settings["duplicates"] != "none",
        place=str(index.folder) if data.synthetic is None else SYNTHETIC_NOTE,
        warnings=_warnings(network.split.get("fingerprint"), index.fingerprint, data),
        tolerances=_tolerances(network),
    )


def _tolerances(network: TorchBackend) -> dict[str, float]:
    found = {name: getattr(task, "tolerance", None) for name, task in network.network.tasks.items()}
    return {name: tolerance for name, tolerance in found.items() if tolerance is not None}


def _build_data(origin: Origin, network: TorchBackend, data_dir: str | None) -> AgeGenderDataModule:
    settings = dict(origin.data) if origin.data else _data_of_weights(origin, network.split, data_dir)
    require(
        not streams(settings),
        f"run={origin.name} was trained from packed shards (data=streaming), in which single test faces can't be "
        f"looked up: measure it on the folder that was packed, {script('train')} fit=false weights=... data.dir=..., "
        "and give that run",
    )
    if data_dir is not None:
        require(
            Path(data_dir).expanduser().is_dir(), f"data_dir={data_dir} is not a folder; give the folder of the faces"
        )
        settings |= {"dir": data_dir, "synthetic": None}
    made, arguments = check_data(settings), kwargs_of(settings)
    given = arguments.get("dir")
    there = given is None or arguments.get("synthetic") is not None or Path(given).expanduser().is_dir()
    require(there, f"the faces of run={origin.name} are not in {given} any more: give their folder with data_dir=...")
    # Each face is read once: a cache of all decoded faces would be made for nothing.
    arguments |= accepted_kwargs(made, cache="none", on_device=False, num_workers=None)
    arguments |= {"image_size": network.image_size, "grayscale": network.grayscale}
    arguments["labels"] = {task.label: task.classes or None for task in network.tasks}
    return made(**arguments)


def _data_of_weights(origin: Origin, split: Mapping[str, Any], data_dir: str | None) -> dict[str, Any]:
    """Return the data settings that reproduce the split stored in a checkpoint."""
    require(data_dir is not None, f"run={origin.name} has no recorded data folder: add data_dir=<folder of UTKFace>")
    file = split.get("split_file") or split.get("table")
    require(
        bool(split) and not file,
        f"the split of run={origin.name} came {'from ' + str(file) if file else 'from an unknown source'}: test it "
        f"with {script('train')} fit=false weights=... and the data's settings, and give that run",
    )
    return {name: split[name] for name in _SPLIT_RULE if name in split}


def _warnings(trained: str | None, tested: str, data: AgeGenderDataModule) -> list[str]:
    found = []
    if trained is not None and trained != tested:
        found.append(
            f"The weights were trained under split {trained}, and this is split {tested}: if the images are the same, "
            "some of these test faces may have been trained on, and the metrics may be optimistic."
        )
    protocol = protocol_of(data.split_settings, data.index.split_source, data.index.leak)
    if protocol.leak is not None and protocol.leak.with_copy:
        found.append(f"Protocol {protocol.name}: {protocol.leak}, so the metrics are optimistic.")
    if data.split_settings["split"] == "random":
        found.append(
            "The run was split file by file (data.split=random): the epoch was selected on its test faces, which may "
            "have copies in the training part, so the metrics are optimistic."
        )
    return found
