"""Which run `resume=` means, the newest whole checkpoint in it, and the command line that continues it."""

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

AUTO = "auto"  # `./auto` is a folder of that name


def train_overrides(arguments: Sequence[str]) -> list[str]:
    """Rewrites train's command line: `resume=` becomes the run that it names, and paths reach the config unharmed."""
    if any(argument.startswith(LIGHTNING_CHILD_FLAG) for argument in arguments):
        return list(arguments)  # the first process, which Lightning had start this one, has rewritten them
    return sweep_arguments(overrides_for_rank(resume_overrides(path_overrides(arguments))))


def resume_overrides(arguments: Sequence[str]) -> list[str]:
    """Expands `resume=<run folder or checkpoint>` so that the run continues where and as it was.

    The old run's own overrides come first, then the given ones; outputs go to the old run's folder. `resume=auto` finds
    the run itself (see `find_unfinished_run`): then the command is used as given, and must be that run's. `resume=` is
    removed if there is no run to continue. Anything else is returned unchanged.

    Raises:
        AgeGenderError: There is no run or checkpoint at that place, or no whole one.
    """
    arguments = list(arguments)
    values = [argument.split("=", 1)[1] for argument in arguments if re.match(r"\+*resume=", argument)]
    if not values or values[-1] in ("null", ""):
        return arguments
    if is_sweep(arguments):
        raise AgeGenderError("resume= continues one run; it can't be part of a multirun (-m)")
    fresh = [argument for argument in arguments if not re.match(r"\+*resume=", argument)]
    if values[-1] == AUTO:
        if detect_launcher(arguments=arguments) and not any(re.match(r"\+*hydra\.run\.dir=", item) for item in fresh):
            # each looks for itself, and the first may be at work in the run by the time that the others look
            raise AgeGenderError("resume=auto of several processes needs to be told the folder: add hydra.run.dir=...")
        found = find_unfinished_run(fresh)
        checkpoint = latest_valid_checkpoint(found) if found else None
        if found is None or checkpoint is None:
            return fresh
        command = [argument for argument in fresh if not re.match(r"\+*(weights|hydra\.run\.dir)=", argument)]
        return _options_first([*command, *_continuing(found, checkpoint, command)])
    given = Path(values[-1])
    if not given.exists():
        given = Path(unquoted(values[-1])).expanduser()
    run = run_dir_of(given)
    saved = run / ".hydra" / "overrides.yaml"
    if not saved.is_file():
        raise AgeGenderError(
            f"resume={given}: {saved} is missing, so the run's settings are unknown; use weights= instead"
        )
    from omegaconf import OmegaConf

    dropped = r"[+~]*(resume|weights|trust|hydra\.)"  # a stranger's record extends no trust; see `trust.py`
    kept = [item for item in as_written(OmegaConf.load(saved)) if not re.match(dropped, item)]
    return _options_first([*kept, *fresh, *_continuing(run, _checkpoint(given, run), kept)])


def _options_first(arguments: list[str]) -> list[str]:
    """Moves Hydra's options before the settings, which its parser takes in one piece only."""
    options: list[str] = []
    settings: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        (options if argument.startswith("-") else settings).append(argument)
        if argument in ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"):
            options.append(next(rest, ""))
    return [*options, *settings]


def _continuing(run: Path, checkpoint: Path, kept: list[str]) -> list[str]:
    # Hydra would replace the run's record before anything was checked: `run` does it when the run may continue.
    outputs = [f"hydra.run.dir={quote_override(str(run))}", "hydra.output_subdir=null"]
    outputs += ["hydra.mode=RUN"] * any(item.startswith("sweep=") for item in kept)  # a sweep's job, not the sweep
    return [f"resume={quote_override(str(checkpoint))}", *outputs]


def run_dir_of(path: Path) -> Path:
    """Returns the folder of the run that a path (the folder itself, or one of its checkpoints) belongs to.

    Raises:
        AgeGenderError: There is nothing at that path.
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
        lacking = "whole checkpoint" if last.parent.is_dir() and any(last.parent.glob("*.ckpt")) else "checkpoint"
        raise AgeGenderError(f"resume={given}: there is no {lacking} at {last}; start the run again")
    return checkpoint


def latest_valid_checkpoint(run: Path) -> Path | None:
    """Returns the checkpoint of a run that is furthest in the training, or None if there is no whole one.

    How far one is stands in it: the file's time says less, since clocks can be put back. A damaged one is named in a
    line on standard error, and passed over.

    Args:
        run: The run's folder.
    """
    from agegender.runs.checkpoint import (
        load_verified_checkpoint,  # imports torch: `--help` and typing mistakes answer without it
    )

    found: list[tuple[int, int, int, Path]] = []
    for name in ("best.ckpt", "last.ckpt"):  # of two that are as far, `last` was written later, and knows more
        path = run / "checkpoints" / name
        if not path.is_file():
            continue
        try:
            checkpoint = load_verified_checkpoint(path)
        except AgeGenderError as error:
            print(f"warning: {error}; passed over", file=sys.stderr)
            continue
        found.append((checkpoint["global_step"], checkpoint["epoch"], len(found), path))
    return max(found)[-1] if found else None


def find_unfinished_run(arguments: Sequence[str]) -> Path | None:
    """Returns the folder of the run that `resume=auto` continues, or None if it is to start afresh.

    That is the run in `hydra.run.dir`, if the command gives one, even a finished one, of which only the test is left to
    do. Else it is the newest run beside the folder that the command would make, `logs/<name>/`, that left no
    `metrics.json` and isn't at work.

    Args:
        arguments: The command's, without `resume=`.
    """
    from agegender.config.compose import compose_command
    from agegender.runs.run_dir import is_running

    options, overrides = split_options(arguments)
    config_name = options.get("--config-name", options.get("-cn", "train"))
    config = compose_command(config_name, overrides, config_dir(arguments), hydra=True)
    folder = Path(config.hydra.run.dir)
    if any(re.match(r"\+*hydra\.run\.dir=", argument) for argument in arguments):
        return folder if _settings(folder).is_file() else None
    begun = [path for path in folder.parent.glob("*") if _settings(path).is_file()]
    runs = [path for path in begun if not (path / "metrics.json").exists()]
    runs.sort(key=lambda path: _settings(path).stat().st_mtime_ns)
    return next((path for path in reversed(runs) if not is_running(path)), None)


def _settings(run: Path) -> Path:
    return run / ".hydra" / "overrides.yaml"
