"""Resumption of a run: its folder, its newest valid checkpoint, and the overrides that continue it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from agegender.config.hydra_versions import sweep_arguments
from agegender.config.overrides import (
    as_written,
    config_dir,
    is_sweep,
    overrides_for_rank,
    path_overrides,
    quote_override,
    split_options,
    unquoted,
)
from agegender.distributed.launcher import LIGHTNING_CHILD_FLAG, detect_launcher
from agegender.errors import AgeGenderError

AUTO = "auto"  # a folder of that name is given as `./auto`


def train_overrides(arguments: Sequence[str]) -> list[str]:
    """Rewrite train's command line: expand `resume=`, and quote paths for Hydra's grammar."""
    if any(argument.startswith(LIGHTNING_CHILD_FLAG) for argument in arguments):
        return list(arguments)  # already rewritten by rank 0, which launched this process
    return sweep_arguments(overrides_for_rank(resume_overrides(path_overrides(arguments))))


def resume_overrides(arguments: Sequence[str]) -> list[str]:
    """Expand `resume=<run folder or checkpoint>` to the overrides that continue the run in its folder.

    The overrides of the run come first, then the given ones, which take precedence. `resume=auto` searches for the run
    (see `find_unfinished_run`). The run's own overrides are then not added, so the command must be the same. If there
    is no such run, `resume=` is removed. All other arguments are returned unchanged.

    Raises:
        AgeGenderError: The run or its overrides don't exist, or there is no valid checkpoint.
    """
    arguments = list(arguments)
    values = [argument.split("=", 1)[1] for argument in arguments if re.match(r"\+*resume=", argument)]
    if not values or values[-1] in ("null", ""):
        return arguments
    if is_sweep(arguments):
        return _check_sweep(arguments, values[-1])
    others = [argument for argument in arguments if not re.match(r"\+*resume=", argument)]
    if values[-1] == AUTO:
        if detect_launcher(arguments=arguments) and not any(re.match(r"\+*hydra\.run\.dir=", item) for item in others):
            # Every rank searches by itself, and rank 0 may already have locked the run when the others search.
            raise AgeGenderError("resume=auto with several processes needs the run's folder: add hydra.run.dir=...")
        run_dir = find_run(others)
        if run_dir is not None and (run_dir / "metrics.json").exists() and _has_settings(run_dir, others):
            print(f"{run_dir} is finished: nothing is left to do; to train again, leave out resume=auto")
            raise SystemExit(0)
        checkpoint = latest_valid_checkpoint(run_dir) if run_dir else None
        if run_dir is None or checkpoint is None:
            return others
        command = [argument for argument in others if not re.match(r"\+*(weights|hydra\.run\.dir)=", argument)]
        return [*command, *_resume_settings(run_dir, checkpoint, command)]
    given = Path(values[-1])
    if not given.exists():
        given = Path(unquoted(values[-1])).expanduser()
    run = run_dir_of(given)
    saved = run / ".hydra" / "overrides.yaml"
    if not saved.is_file():
        raise AgeGenderError(
            f"resume={given} can't be continued: {saved}, the run's settings, is missing; use weights= instead"
        )
    # `trust`: a record can't extend the allow-list, see `trust.py`
    kept = [item for item in _recorded(saved) if not re.match(r"[+~]*(resume|weights|trust|hydra[./@])", item)]
    return [*kept, *others, *_resume_settings(run, _checkpoint(given, run), kept)]


def _check_sweep(arguments: list[str], value: str) -> list[str]:
    """Return the arguments of a multirun with `resume=auto`, which `sweeps.continuation` handles.

    Raises:
        AgeGenderError: `resume` is a run, or the multirun is a search.
    """
    if value != AUTO:
        raise AgeGenderError("resume=<run> continues one run: use it without -m and without sweep=, or resume=auto")
    if any(re.match(r"\+*(sweep=optuna|hydra/sweeper=study)$", argument) for argument in arguments):
        raise AgeGenderError("sweep=optuna continues its study with the same command: leave out resume=auto")
    return arguments


_SETTING = re.compile(r"\+{0,2}[A-Za-z_][\w./@]*=.*|~[A-Za-z_][\w./@]*(=.*)?", re.S)


def _recorded(saved: Path) -> list[str]:
    """Return the overrides in a run's record, which may be somebody else's: settings only, no options of Hydra.

    Raises:
        AgeGenderError: The record is damaged, or holds anything else.
    """
    from omegaconf import OmegaConf

    try:
        record = OmegaConf.load(saved)
        items = as_written(record) if OmegaConf.is_list(record) or not record else None
    except Exception as error:  # PyYAML's and OmegaConf's exceptions have no common base class
        reason = " ".join(str(error).split())[:120]
        raise AgeGenderError(f"{saved} is damaged ({reason}): use weights= instead") from None
    if items is None:
        raise AgeGenderError(f"{saved} is damaged (it holds no list of settings): use weights= instead")
    for item in items:
        if not _SETTING.fullmatch(item):
            raise AgeGenderError(f"{saved} holds {item!r}, which is no setting: it is refused; use weights= instead")
    return items


def _resume_settings(run: Path, checkpoint: Path, kept: list[str]) -> list[str]:
    """Return the overrides that set the checkpoint and the outputs of a resumed run."""
    # Hydra would overwrite the run's record before the checks; `train` writes it after them.
    outputs = [f"hydra.run.dir={quote_override(str(run))}", "hydra.output_subdir=null"]
    # A job of a sweep is continued alone, not the whole sweep.
    outputs += ["hydra.mode=RUN"] * any(item.startswith("sweep=") for item in kept)
    return [f"resume={quote_override(str(checkpoint))}", *outputs]


def run_dir_of(path: Path) -> Path:
    """Return the run folder of a path, which is the folder itself or one of its checkpoints.

    Raises:
        AgeGenderError: The path doesn't exist.
    """
    if path.is_file():
        return path.parent.parent
    if path.is_dir():
        return path
    raise AgeGenderError(f"{path} does not exist; give a run's folder (logs/...) or a checkpoint in it")


def _checkpoint(given: Path, run: Path) -> Path:
    checkpoint = given if given.is_file() else latest_valid_checkpoint(run)
    if checkpoint is None:
        last = run / "checkpoints" / "last.ckpt"
        missing = "valid checkpoint" if last.parent.is_dir() and any(last.parent.glob("*.ckpt")) else "checkpoint"
        raise AgeGenderError(f"resume={given} has no {missing} at {last}; start the run again without resume=")
    return checkpoint


def latest_valid_checkpoint(run: Path) -> Path | None:
    """Return the valid checkpoint of a run with the most steps, or None if there is none.

    The step count is read from the checkpoint, because file times are unreliable if the clock was set back. A damaged
    checkpoint is skipped with a warning on standard error.

    Args:
        run: Run folder.
    """
    # Imports torch, which `--help` and errors on the command line don't need.
    from agegender.runs.checkpoint import best_of, load_checkpoint

    found: list[tuple[int, int, int, Path]] = []
    last = run / "checkpoints" / "last.ckpt"
    for path in (best_of(run), last):  # with equal steps `last` wins: it was written later
        if path is None or not path.is_file():
            continue
        try:
            checkpoint = load_checkpoint(path)
        except AgeGenderError as error:
            print(f"warning: {error}; skipped", file=sys.stderr)
            continue
        found.append((checkpoint["global_step"], checkpoint["epoch"], len(found), path))
    return max(found)[-1] if found else None


def find_run(arguments: Sequence[str]) -> Path | None:
    """Return the run folder that `resume=auto` continues, finished or not; None to start a new run.

    That is the run in `hydra.run.dir` if the command sets it, even if its training is complete and only the test is
    missing. Otherwise it is the newest run in `logs/<name>/` that has no `metrics.json` and is not running; if there is
    none, the newest finished one with the same settings.

    Args:
        arguments: Command-line arguments without `resume=`.
    """
    from agegender.config.compose import compose_command
    from agegender.runs.run_dir import is_running

    options, overrides = split_options(arguments)
    config_name = options.get("--config-name", options.get("-cn", "train"))
    config = compose_command(config_name, overrides, config_dir(arguments), hydra=True)
    folder = Path(config.hydra.run.dir)
    if any(re.match(r"\+*hydra\.run\.dir=", argument) for argument in arguments):
        return folder if _overrides_file(folder).is_file() else None
    started = [path for path in folder.parent.glob("*") if _overrides_file(path).is_file()]
    started.sort(key=lambda path: _overrides_file(path).stat().st_mtime_ns, reverse=True)
    unfinished = [path for path in started if not (path / "metrics.json").exists() and not is_running(path)]
    return next(iter(unfinished), None) or next((path for path in started if _has_settings(path, overrides)), None)


def _has_settings(run: Path, arguments: Sequence[str]) -> bool:
    """Return whether a command line has the settings of a run's record, in any order."""
    recorded = _recorded(_overrides_file(run))
    resumed = any(item.startswith("resume=") for item in recorded)  # such a record has no weights=
    ignored = r"[+~]*(hydra[./@]|resume=|weights=)" if resumed else r"[+~]*hydra[./@]"
    given, kept = (
        sorted(item for item in items if not re.match(ignored, item))
        for items in (split_options(arguments)[1], recorded)
    )
    return given == kept


def _overrides_file(run: Path) -> Path:
    return run / ".hydra" / "overrides.yaml"
