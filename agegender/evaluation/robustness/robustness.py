"""Evaluate a trained model on corrupted images: `agegender robustness run=...`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agegender.errors import require
from agegender.evaluation.robustness.results_file import RESAMPLES, SEED, robustness_command
from agegender.system.files import display_path

if TYPE_CHECKING:  # torch and matplotlib are imported late, so that errors in the settings are reported at once
    from agegender.evaluation.robustness.rebuilt_run import RebuiltRun

log = logging.getLogger(__name__)


def measure_robustness(
    run: str | None = None,
    out: str | None = None,
    data_dir: str | None = None,
    split: Literal["test", "val"] = "test",
    limit: int | None = None,
    batch_size: int = 64,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    tta: Literal["none", "flip"] | None = None,
    device: str = "auto",
) -> Path:
    """Evaluate a run on its faces, unchanged and under each of `corruptions.CORRUPTIONS`, and write the metrics.

    The network computes in float32: if the run's own test used mixed precision, the metrics of the clean faces can
    differ from it in the third digit.

    Args:
        run: A run's folder, a folder of runs (the one with the newest best checkpoint is taken), a checkpoint,
            `default` or another name of bundled weights, or None for the newest tested run below `logs`.
        out: Folder for `robustness.html`, `robustness.json` and the plots; None for `robustness` in the run's folder
            (`robustness_val` for `split=val`), or `logs/robustness/<name>` for weights that belong to no run.
        data_dir: Folder of the faces; None for the folder in the run's settings. Required for weights that belong to no
            run: their faces follow from the split settings in the checkpoint.
        split: `val` to compare recipes: the test faces choose nothing.
        limit: Maximum number of faces, a fixed subset.
        batch_size: Faces per forward pass.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the resamples.
        tta: `flip` to average predictions over a face and its mirror image; None for that of the run's own test.
        device: `auto`, `cpu`, `cuda`, ...

    Returns:
        Path of the page.

    Raises:
        AgeGenderError: No such run, no faces, missing images, or a folder that can't be written.
    """
    from agegender.evaluation.report.run_reader import find_runs
    from agegender.evaluation.robustness.measure import measure, predict_all
    from agegender.evaluation.robustness.rebuilt_run import find_origin, rebuild

    checked = {"limit": (limit, 1), "batch_size": (batch_size, 1), "resamples": (resamples, 1), "seed": (seed, 0)}
    for name, (value, least) in checked.items():
        require(value is None or value >= least, f"{name}={value} must be at least {least}")
    origin = find_origin(run or str(find_runs(None)[0]))
    folder = Path(out).expanduser() if out else _folder_of(origin.name, origin.folder, split)
    require(not folder.exists() or folder.is_dir(), f"out={folder} is a file; give a folder for the page")
    rebuilt = rebuild(origin, data_dir, split, limit, tta, device)
    for warning in rebuilt.warnings:
        log.warning("warning: %s", warning)
    figures = measure(rebuilt, predict_all(rebuilt, batch_size), resamples, seed)
    given = {
        "out": out,
        "data_dir": data_dir,
        "split": split,
        "limit": limit,
        "resamples": resamples,
        "seed": seed,
        "tta": tta,
    }
    numbers = {
        **_about(rebuilt),
        "split": split,
        "command": robustness_command(origin.name, given),
        "resamples": resamples,
        "seed": seed,
    }
    return _write({**numbers, **figures}, folder)


def _folder_of(name: str, run: Path | None, split: str) -> Path:
    folder = "robustness" if split == "test" else f"robustness_{split}"
    return run / folder if run else Path("logs") / folder / Path(name).stem


def _about(rebuilt: RebuiltRun) -> dict[str, Any]:
    """Return the description of the evaluated weights and data, for the page and `robustness.json`."""
    from agegender.evaluation.statistics.bootstrap import CONFIDENCE

    origin, network = rebuilt.origin, rebuilt.network
    return {
        "run": origin.folder.resolve().name if origin.folder else Path(origin.name).name,
        "checkpoint": display_path(origin.checkpoint) if origin.folder else origin.checkpoint.name,
        "data": rebuilt.place,
        "split_fingerprint": rebuilt.faces.index.fingerprint,
        "weights_split_fingerprint": network.split.get("fingerprint"),
        "image_size": network.image_size,
        "grayscale": network.grayscale,
        "tta": origin.tta,
        "copies_known": rebuilt.duplicates_known,
        "warnings": rebuilt.warnings,
        "confidence": CONFIDENCE,
    }


def _write(numbers: dict[str, Any], folder: Path) -> Path:
    from agegender.evaluation.html.page import write_page_with_numbers
    from agegender.evaluation.robustness.page import build_robustness_page, print_table

    page = build_robustness_page(numbers)
    write_page_with_numbers(page, numbers, folder, "robustness")
    print_table(numbers)
    return folder / "robustness.html"
