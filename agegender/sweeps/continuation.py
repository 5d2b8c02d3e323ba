"""Continuation of an interrupted sweep by the same command: its folder, and what is left of each job."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from agegender.config.overrides import as_written
from agegender.errors import require
from agegender.runs.resume import AUTO, latest_valid_checkpoint
from agegender.runs.run_dir import LOCK_FILE, create_run_dir, is_running, set_run_dir
from agegender.sweeps.records import (
    JOB_RECORD,
    SWEEP_RECORD,
    metrics_of,
    read_record,
    setting_key,
    varied_settings,
    write_record,
)
from agegender.sweeps.settings import NOT_COMPARED, is_below, settings_digest
from agegender.system.files import acquire_lock

_locks: dict[Path, FileLock] = {}  # of the sweeps of this process, until it ends


def choose_folder(config: DictConfig) -> str:
    """Set the folder of a multirun in its config, lock it, and return the digest of the sweep's settings.

    The folder is that of the newest unfinished sweep of the same command; with `resume=auto` that of a finished one
    too; with `resume=null` a new one. A folder that the command sets is used as it is.

    Raises:
        AgeGenderError: The folder holds another sweep, or another process runs this one.
    """
    task = _without_resume(as_written(config.hydra.overrides.task))
    compared = sorted(item for item in task if not is_below(setting_key(item), NOT_COMPARED))
    settings = settings_digest(config, compared, OmegaConf.select(config, "hydra.sweeper.params"))
    written: dict[str, Any] = OmegaConf.to_container(config.hydra.sweep, resolve=False)  # type: ignore[assignment]
    folder, anew = Path(config.hydra.sweep.dir), "resume=null" in as_written(config.hydra.overrides.task)
    if "${now:" not in str(written["dir"]):
        _check_same_sweep(folder, None if anew else settings)
    elif not anew and (found := _find(folder.parent, settings, config.resume == AUTO)):
        set_run_dir(config, "sweep", found)
    else:
        create_run_dir(config, "sweep")
    folder = Path(config.hydra.sweep.dir).resolve()
    if folder not in _locks:
        folder.mkdir(parents=True, exist_ok=True)
        refusal = f"another process runs the sweep in {folder}: wait for it, or set another folder with name=..."
        _locks[folder] = acquire_lock(folder / LOCK_FILE, refusal)
    return settings


def release_folder(folder: Path) -> None:
    """Release the lock of a sweep that has ended."""
    lock = _locks.pop(folder.resolve(), None)
    if lock is not None:
        lock.release()
        (folder / LOCK_FILE).unlink(missing_ok=True)


def _find(logs: Path, settings: str, finished: bool) -> Path | None:
    """Return the folder of the newest sweep with these settings that no process runs, or None."""
    newest = sorted(logs.glob(f"*/{SWEEP_RECORD}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in newest:
        record = read_record(path) or {}
        free = path.parent.resolve() in _locks or not is_running(path.parent)
        if record.get("settings") == settings and free and (finished or not record["finished"]):
            return path.parent
    return None


def _check_same_sweep(folder: Path, settings: str | None) -> None:
    same = settings is not None and (read_record(folder / SWEEP_RECORD) or {}).get("settings") == settings
    trained = any(True for name in ("checkpoints", "metrics.json") for _ in folder.rglob(name))
    require(same or not trained, f"hydra.sweep.dir={folder} holds another sweep or run: set another folder")


def prepare_job(config: DictConfig) -> float | None:
    """Return the score of a sweep's job that is finished; else set its `resume` to its newest checkpoint, if any.

    A job of an Optuna study is left as it is: its study decides what is repeated.

    Raises:
        AgeGenderError: The job's folder holds a run with other settings.
    """
    hydra = HydraConfig.get()
    sweep = read_record(Path(hydra.sweep.dir) / SWEEP_RECORD) if hydra.mode is RunMode.MULTIRUN else None
    if sweep is None:
        return None
    config.resume = None  # the word `auto`, which has chosen the sweep's folder
    folder, settings = Path(hydra.runtime.output_dir), settings_digest(config)
    before, overrides = read_record(folder / JOB_RECORD) or {}, _without_resume(as_written(hydra.overrides.task))
    same = before.get("settings") == settings
    trained = (folder / "metrics.json").exists() or (folder / "checkpoints").exists()
    require(same or not trained, f"{folder} holds a run with other settings: set another folder, hydra.sweep.dir=...")
    score = _finished_score(folder, overrides) if same else None
    checkpoint = latest_valid_checkpoint(folder) if same and score is None else None
    record = {"sweep": sweep["sweep"], "job": hydra.job.num, "overrides": overrides, "settings": settings}
    kept = {"score": score, "error": None, "seconds": before.get("seconds") if same else None}
    write_record(folder / JOB_RECORD, {**record, **kept})
    name = job_name(hydra.job.num, overrides, sweep)
    if score is not None:
        print(f"{name}: {sweep['monitor']} {score:.4f}, finished before", flush=True)
        return score
    if checkpoint is not None:
        config.resume, config.weights = str(checkpoint), None
    print(f"{name} {'continues from ' + checkpoint.name if checkpoint else 'starts'}", flush=True)
    return None


def job_name(number: int, overrides: list[str], sweep: dict[str, Any]) -> str:
    """Return a job's number with the settings that vary."""
    settings = " ".join(varied_settings(overrides, sweep["varied"]))
    return f"job {number} ({settings})" if settings else f"job {number}"


@contextmanager
def quiet_job() -> Iterator[None]:
    """Log only warnings and errors of a multirun's job.

    Not with `hydra.verbose`, nor with a launcher such as submitit's, whose jobs have a log each.
    """
    hydra, logger = HydraConfig.get(), logging.getLogger("agegender")
    before = logger.level
    shares_terminal = hydra.runtime.choices.get("hydra/launcher", "basic") == "basic"
    if hydra.mode is RunMode.MULTIRUN and shares_terminal and not hydra.verbose:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _finished_score(folder: Path, overrides: list[str]) -> float | None:
    """Return the score of a run that finished with these overrides; it may have been continued by hand with others."""
    results = metrics_of(folder)
    written = [item for item in str(results.get("overrides")).split() if not item.startswith(("resume=", "weights="))]
    given = [item for item in " ".join(overrides).split() if not item.startswith("weights=")]
    return results.get("best_score") if sorted(written) == sorted(given) else None


def _without_resume(overrides: list[str]) -> list[str]:
    return [item for item in overrides if setting_key(item) != "resume"]


def varied_keys(config: DictConfig) -> list[str]:
    """Return the keys of the settings that a multirun varies."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    lines = [*(f"{key}={value}" for key, value in params.items()), *as_written(config.hydra.overrides.task)]
    overrides = {item.get_key_element().lstrip("+"): item for item in OverridesParser.create().parse_overrides(lines)}
    return [key for key, item in overrides.items() if item.is_sweep_override()]
