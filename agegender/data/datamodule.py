"""Lightning datamodule: shuffled, resumable, augmented batches of a folder of faces."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from agegender.data.augmentation.build import OWN, Augmentation, build_augmentation
from agegender.data.augmentation.corruptions import corrupt_any
from agegender.data.index.duplicates import Mode
from agegender.data.index.index import FaceIndex, build_index, check_labels
from agegender.data.index.protocol import protocol_of
from agegender.data.index.split import Split, SplitRule, first_rows, fold_of, left_out
from agegender.data.index.table import check_ending
from agegender.data.index.utkface import CLASSES, LABELS
from agegender.data.loading.dataset import Batch, FaceDataset, step_seed
from agegender.data.loading.device_dataset import DeviceDataset, to_device
from agegender.data.loading.feature_cache import FeatureCache, FeatureViews, describe_view
from agegender.data.loading.loader import (
    DistributedBatchSlicer,
    FaceDataLoader,
    Rank,
    ResumableDataLoader,
    ResumableShuffleSampler,
)
from agegender.data.loading.pixel_cache import DecodeOnRead, MemmapPixels, open_pixel_cache
from agegender.data.sources.resolve import resolve_data_dir
from agegender.data.sources.synthetic import TABLE
from agegender.errors import require
from agegender.models.network import MultiTaskNet
from agegender.system.files import default_cache_dir
from agegender.system.progress import available_cores

log = logging.getLogger(__name__)


class AgeGenderDataModule(pl.LightningDataModule):
    """Faces, named as in UTKFace or listed by a table, for training, validation and test.

    Attributes:
        streamed: Whether faces come in a stream, in which none can be looked up by its place.
    """

    streamed = False

    def __init__(
        self,
        dir: str | None = None,
        table: str | None = None,
        synthetic: dict[str, Any] | None = None,
        cache_dir: str | None = None,
        cache: Literal["auto", "none"] = "auto",
        on_device: Literal["auto"] | bool = "auto",
        image_size: int = 128,
        grayscale: bool = True,
        batch_size: int = 32,
        num_workers: int | None = None,
        limit: int | None = None,
        train_limit: int | None = None,
        strict: bool = False,
        age_range: Sequence[int] = (0, 120),
        duplicates: Mode = "near",
        split: SplitRule = "content",
        split_file: str | None = None,
        split_seed: int = 0,
        test_fraction: float = 0.2,
        val_fraction: float = 0.1,
        fold: int | None = None,
        folds: int | None = None,
        leave_out: str | None = None,
        views: int = 2,
        augment: Mapping[str, Any] | None = None,
        seed: int = 0,
        labels: Mapping[str, Sequence[str] | None] | None = None,
    ):
        """Store the settings; nothing is read before `prepare_data` or `setup`.

        Args:
            dir: Folder of images named as in UTKFace, see `parse_name`; UTKFace is downloaded if `data/UTKFace` doesn't
                exist. If it is None, `table` or `synthetic` must be given.
            table: CSV or Parquet with the images' paths and labels, see `read_table`. Paths are relative to `dir`, or
                to the table's own folder.
            synthetic: Draw cartoon faces instead: arguments of `generate_faces`. With `glasses`, its table is read.
            cache_dir: Folder of decoded pixels, scan results and downloads; None for the user's cache folder.
            cache: `auto` decodes once into a memory-mapped array; `none` decodes at every read.
            on_device: Keep the decoded pixels on the training device, so that the loop loads nothing; `auto` does so on
                a GPU if they take at most half of its free memory.
            image_size: Side of the network's square input in pixels.
            grayscale: One channel instead of three.
            batch_size: Faces per step on all devices together; each takes an equal part.
            num_workers: Loader processes; None for one per core (at most 8) if they decode, none with cached pixels,
                where an indexed read costs less than the transfer of a batch between processes.
            limit: Use only this many faces, a fixed subset spread over the splits.
            train_limit: Train on only this many of the training faces, a fixed subset; a smaller one lies within a
                larger one. Validation and test faces stay as they are, as a learning curve needs.
            strict: Raise an error if anything is quarantined.
            age_range: Lowest and highest accepted age in years, inclusive.
            duplicates: Copies that are kept in one split: `near`, `exact` or `none`.
            split: `content`: by content, or the table's column split if there is one; `random`: file by file, with the
                test faces as validation faces, for comparison only; `test`: all faces, to evaluate on other data;
                `folds`, `fivefold_benchmark` and `coral`: see `conf/protocol`.
            split_file: A published protocol: CSV with the columns file, split.
            split_seed: Seed of the split, independent of the training's `seed`.
            test_fraction: Fraction of all images.
            val_fraction: Fraction of the images that are not in test.
            fold: Number of the fold that is the test set, from 0.
            folds: Number of folds.
            leave_out: `i/n`: train without part i (from 0) of n equal parts of the training faces, copies together. The
                split and its fingerprint stay as they are. See `training/distillation/teachers.py` for its use.
            views: Augmented views of each training face among the cached features of a frozen trunk, beside the face as
                it is; see `keep_features`.
            augment: Settings of `conf/augment` without those of `Mixing`: a class as `_target_` (`Augment` unless
                given), and its arguments. The object is called with images and a generator, see `Augment`. None or
                empty for none.
            seed: Chooses order and augmentation.
            labels: Labels that the tasks need, and their classes; None for a number. File names hold `LABELS`, a table
                others too.
        """
        super().__init__()
        workers_fit = num_workers is None or num_workers >= 0
        ages_fit = len(age_range) == 2 and age_range[0] <= age_range[1]
        require(image_size >= 8, f"data.image_size={image_size} must be at least 8 pixels")
        require(views >= 0, f"data.views={views} must be at least 0")
        require(batch_size >= 1, f"data.batch_size={batch_size} must be at least 1")
        require(workers_fit, f"data.num_workers={num_workers} must be null or at least 0")
        require(ages_fit, f"data.age_range={list(age_range)} must be two ages, the lower one first")
        require(0 < test_fraction < 1, f"data.test_fraction={test_fraction} must lie between 0 and 1, both excluded")
        require(0 < val_fraction < 1, f"data.val_fraction={val_fraction} must lie between 0 and 1, both excluded")
        whole = split == "content" or split_file is None
        require(whole, f"data.split={split} and data.split_file={split_file}: choose one of them")
        least = train_limit is None or train_limit >= 1
        require(least, f"data.train_limit={train_limit} must be null or at least 1")
        fold_of(split, fold, folds)  # raises if they don't fit
        if leave_out is not None:
            left_out([], np.zeros(0, np.int64), split_seed, leave_out)  # raises if malformed
        if table is not None:
            check_ending(Path(table))
            require(synthetic is None, f"data.table={table} and data.synthetic: choose data=table or data=synthetic")
            require(split_file is None, f"data.split_file={split_file}: a table has a column split for that")
        if table is None and not (synthetic or {}).get("glasses"):
            held = {name: CLASSES.get(name) for name in LABELS}
            check_labels(labels or {}, held, "file names", "use data=table")
        self.dir, self.synthetic = dir, synthetic
        self.table = Path(table).expanduser() if table is not None else None
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        fits = on_device is not True or (cache == "auto" and not num_workers)
        require(fits, "data.on_device=true keeps what was decoded once: set data.cache=auto and data.num_workers=null")
        self.cache, self.on_device, self.image_size, self.grayscale = cache, on_device, image_size, grayscale
        self.batch_size, self.num_workers, self.limit, self.seed = batch_size, num_workers, limit, seed
        self.leave_out, self.train_limit = leave_out, train_limit
        self._index_options: dict[str, Any] = {
            "labels": labels or {},
            "age_range": tuple(age_range),
            "duplicates": duplicates,
            "split": split,
            "split_file": Path(split_file).expanduser() if split_file else None,
            "split_seed": split_seed,
            "test_fraction": test_fraction,
            "val_fraction": val_fraction,
            "fold": fold,
            "folds": folds,
            "strict": strict,
        }
        self.views = views
        self._augmentation = {key: value for key, value in (augment or {}).items() if value != OWN}
        self._augment: Augmentation | None = build_augmentation(augment) if augment else None
        self._features: dict[str, FeatureViews] = {}
        self._index: FaceIndex | None = None
        self._splits: dict[str, FaceDataset] = {}
        self._used = np.zeros(0, dtype=np.int64)  # rows of the index
        self._placed: dict[str, DeviceDataset] = {}
        self._train_loader: ResumableDataLoader | None = None
        self._position: dict[str, int] | None = None

    @property
    def split_settings(self) -> dict[str, Any]:
        """Settings that determine the split, as plain values, which checkpoints store."""
        names = ("duplicates", "split", "split_seed", "test_fraction", "val_fraction", "fold", "folds")
        named = {name: self._index_options[name] for name in names}
        split_file = self._index_options["split_file"]
        return {
            **named,
            "age_range": list(self._index_options["age_range"]),
            "split_file": split_file.name if split_file else None,
            "table": self.table.name if self.table else None,
            "limit": self.limit,
            "leave_out": self.leave_out,
            "pictures": "photographs" if self.synthetic is None else "drawn",
        }

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return 1 if self.grayscale else 3

    @property
    def index(self) -> FaceIndex:
        """Index of the folder; `setup` must have run."""
        if self._index is None:
            raise RuntimeError("call setup() first")
        return self._index

    def prepare_data(self) -> None:
        """Download or draw missing images (Lightning calls this on one rank only)."""
        if self._index is None:
            resolve_data_dir(self.dir, self.table, self.synthetic, self.cache_dir)

    def find_index(self) -> FaceIndex:
        """Index and split the images, downloading or drawing missing ones first; opens no pixel cache."""
        folder = resolve_data_dir(self.dir, self.table, self.synthetic, self.cache_dir)
        drawn = folder / TABLE if self.synthetic and self.synthetic.get("glasses") else None
        return build_index(folder, self.cache_dir, table=self.table or drawn, **self._index_options)

    def setup(self, stage: str | None = None) -> None:
        """Index the folder, split it and open the pixel cache; a second call does nothing."""
        if self._index is not None:
            return
        index = self.find_index()
        rows = {name: index.rows(name, self.limit) for name in ("train", "val", "test")}
        self._used = np.unique(np.concatenate(list(rows.values())))
        if self.leave_out is not None:  # after `_used`: one pixel cache serves the trainings of all parts
            rows["train"] = self._without_part(index, rows["train"], self.leave_out)
        if self.train_limit is not None:
            rows["train"] = first_rows(index.digests, rows["train"], self.train_limit)
        pixels = self._open_pixels(index, self.image_size, self.grayscale)
        self._splits = {name: FaceDataset(index, part, pixels) for name, part in rows.items()}
        self._index = index
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in rows.items())
        log.info(
            "%s: %s images, split %s (copies: %s)",
            index.folder,
            sizes,
            index.fingerprint,
            self._index_options["duplicates"],
        )
        needed = self._index_options["labels"] or index.labels
        missing = {name: int(np.isnan(index.labels[name]).sum()) for name in needed}
        if any(missing.values()):
            counts = ", ".join(f"{name} of {count:,} images" for name, count in missing.items())
            log.info("missing labels: %s; losses and metrics ignore them", counts)
        protocol_of(self.split_settings, index.split_source, index.leak).log()

    def _without_part(self, index: FaceIndex, rows: NDArray[np.int64], part: str) -> NDArray[np.int64]:
        seed = self._index_options["split_seed"]
        kept = rows[~left_out(index.digests, index.duplicates, seed, part)[rows]]
        require(len(kept) > 0, f"data.leave_out={part} leaves no face to train on: give more images")
        log.info("data.leave_out=%s: %d of %d training images are left out", part, len(rows) - len(kept), len(rows))
        return kept

    def open_pixels(self, image_size: int, grayscale: bool) -> MemmapPixels | DecodeOnRead:
        """Open the images in the input format of another network; `setup` must have run."""
        return self._open_pixels(self.index, image_size, grayscale)

    def _open_pixels(self, index: FaceIndex, size: int, grayscale: bool) -> MemmapPixels | DecodeOnRead:
        if self.cache == "none":
            return DecodeOnRead(index.folder, index.names, size, grayscale)
        return open_pixel_cache(index.folder, index.names, index.digests, self._used, size, grayscale, self.cache_dir)

    def split(self, name: Split) -> FaceDataset:
        """Return the faces of one split; `setup` must have run."""
        return self._splits[name]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled, resumable batches; the last may be smaller."""
        faces = self._faces("train")
        sampler = ResumableShuffleSampler(len(faces), self.seed, self.batch_size, self._part())
        self._train_loader = ResumableDataLoader(faces, sampler=sampler, **self._loader_options())
        if self._position is not None:
            self._train_loader.load_state_dict(self._position)
        return self._train_loader

    def state_dict(self) -> dict[str, int]:
        """Return the position of the training loader, for checkpoints."""
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Make the next training loader continue from a saved position.

        Lightning restores the loader's own state too, but not if the loader was created before, for example by a
        schedule that counts the steps. The datamodule's state is restored first.
        """
        self._position = state_dict or None

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation batches in the order of the index."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test batches in the order of the index."""
        return self._in_order("test")

    def _in_order(self, name: Split) -> FaceDataLoader:
        faces = self._faces(name)
        sampler = DistributedBatchSlicer(len(faces), self.batch_size, self._part())
        return FaceDataLoader(faces, sampler=sampler, **self._loader_options())

    def _part(self) -> Rank:
        """Return this rank's part of each batch (`check_world_size` ensures that batches divide equally)."""
        return Rank() if self.trainer is None else Rank(self.trainer.global_rank, self.trainer.world_size)

    @property
    def device(self) -> torch.device:
        """The training device."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _faces(self, name: str) -> FaceDataset | DeviceDataset:
        """Return the faces of a split, on the training device if `on_device` applies."""
        device, pixels = self.device, self._splits[name].pixels
        if not self._placed and isinstance(pixels, MemmapPixels) and self._fits_on_device(device, pixels):
            self._placed = to_device(self._splits, pixels, device)
        return self._placed.get(name, self._splits[name])

    def _fits_on_device(self, device: torch.device, pixels: MemmapPixels) -> bool:
        if self.num_workers or self.on_device is False or (self.on_device == "auto" and device.type != "cuda"):
            return False
        room = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
        needed = pixels.as_tensor().nbytes
        if self.on_device == "auto" and needed > room / 2:
            log.info("%.1f GB of pixels stay in main memory: the GPU has %.1f GB free", needed / 1e9, room / 1e9)
            return False
        require(needed < room, f"data.on_device=true: {needed / 1e9:.1f} GB of pixels don't fit; data.on_device=false")
        return True

    def _default_num_workers(self) -> int:
        """Return the number of this rank's loader processes: its fraction of the available cores, at most 8."""
        processes = 1 if self.trainer is None else self.trainer.num_devices  # on this machine
        return max(1, min(available_cores() // processes, 8))

    def _loader_options(self) -> dict[str, Any]:
        workers = self.num_workers
        if workers is None:
            workers = 0 if self.cache == "auto" else self._default_num_workers()
        return {
            "batch_size": self.batch_size // self._part().world_size,
            "num_workers": workers,
            "pin_memory": self.device.type == "cuda" and not self._placed,
            "persistent_workers": workers > 0,
            "collate_fn": identity_collate,
        }

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch without blocking; a batch that is on the device already is returned unchanged."""
        if batch["image"].device == device:
            return batch
        moved: Batch = move_data_to_device(batch, device)
        return moved

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training batches on their device; validation and test batches are unchanged."""
        if self.trainer is None or not self.trainer.training:
            return self._with_features(batch)
        step = self.trainer.fit_loop.epoch_loop.batch_idx + 1  # of this batch: Lightning increments it after this hook
        seed = step_seed(self.seed, self.trainer.current_epoch, step, "augment", self.trainer.global_rank)
        generator = torch.Generator().manual_seed(seed)
        if self._features:
            return {**batch, "features": self._features["train"].draw(batch["row"], generator)}
        return batch if self._augment is None else {**batch, "image": self._augment(batch["image"], generator)}

    def training_features(self) -> list[Tensor]:
        """Return the cached features of the training faces, each view float32 `[faces, features]`."""
        return self._features["train"].views

    def _with_features(self, batch: Batch) -> Batch:
        if not self._features or self.trainer is None:
            return batch
        if self.trainer.testing:
            return {**batch, "features": self._features["test"].read(batch["row"])}
        faces = self._features["val"]
        read: Batch = {**batch, "features": faces.read(batch["row"])}
        return {**read, "corrupted": faces.read(batch["row"], 1)} if len(faces.views) > 1 else read

    def keep_features(
        self, network: MultiTaskNet, precision: Callable[[], AbstractContextManager[Any]], fit: bool = True
    ) -> None:
        """Cache the features of a frozen trunk; batches then carry them, and images are no longer augmented.

        All faces are cached unchanged. For a training, each training face has `views` augmented views too, and each
        step draws one of all; validation faces are cached corrupted as well, for the calibration.

        Args:
            network: A network with `trainable="none"`, in evaluation mode.
            precision: Factory of the training's precision context.
            fit: Whether the run trains.
        """
        cache, pixels = FeatureCache(network, self.cache_dir, self.seed, precision), self._splits["train"].pixels
        unchanged = cache.features(FaceDataset(self.index, self._used, pixels))  # for all splits and folds
        for name in self._splits:
            # all training faces, including those of `leave_out`: one cache serves the trainings of all parts
            rows = self.index.rows(name, self.limit)
            faces, views = FaceDataset(self.index, rows, pixels), [unchanged[np.searchsorted(self._used, rows)]]
            if name == "train" and fit and (augment := self._augment) is not None:

                def vary(images: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
                    return augment(images, generator)

                described = [describe_view(self._augmentation, number) for number in range(self.views)]
                views += [cache.features(faces, vary, description) for description in described]
            if name == "val" and fit:
                views.append(cache.features(faces, lambda images, rows, _: corrupt_any(images, rows), "corrupted"))
            self._features[name] = FeatureViews(rows, views)


def identity_collate(batch: Batch) -> Batch:
    """Return the batch unchanged, as collate function: `__getitems__` returns whole batches."""
    return batch
