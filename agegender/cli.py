"""The edge between a command line and the code: errors in one line, exit codes, and what `resume=` means."""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agegender.errors import AgeGenderError, InterruptedRunError, TerminatedError
from agegender.files import FULL
from agegender.hydra_versions import sweep_arguments
from agegender.launched import LIGHTNINGS, launched, let_the_first_tell, own_arguments
from agegender.resuming import AUTO, find_unfinished, newest_whole

EXIT_ERROR = 1
EXIT_USAGE = 2  # a command line that can't be understood
EXIT_INTERRUPTED = 130  # the shell's convention for Ctrl-C
EXIT_TERMINATED = 143  # for SIGTERM
EXIT_PIPE = 141  # and for a pipe whose other end was closed, as `| head` does


def nearest(wrong: str, valid: Iterable[str]) -> str:
    """Returns `did you mean ...?` if a valid name is close to the wrong one, else the list of valid names."""
    names = sorted(valid)
    close = difflib.get_close_matches(wrong.lower(), [name.lower() for name in names], n=1, cutoff=0.6)
    if close:
        return f"did you mean {next(name for name in names if name.lower() == close[0])}?"
    return f"there are {', '.join(names)}" if names else "nothing can be set there"


def launch(main: Callable[[], Any], config_name: str, conf: Path, resumes_runs: bool = False) -> None:
    """Runs a Hydra entry point so that a user's mistake ends in one line and a non-zero exit code.

    Args:
        main: The function that `hydra.main` made.
        config_name: Its primary config.
        conf: Its config folder.
        resumes_runs: Its `resume=` names a run, see `resume_arguments`.
    """
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what goes wrong instead of printing and exiting itself
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from agegender.hydra_targets import hydra_builds_only_known_classes
    from agegender.trust import take_trust

    started = launched()
    tells = started is None or started.rank == 0  # of several processes that were given one command line
    try:
        with one_line_errors(tells=tells), hydra_builds_only_known_classes():
            sys.argv[1:] = take_trust(sys.argv[1:])
            if resumes_runs:
                sys.argv[1:] = sweep_arguments(own_arguments(resume_arguments(sys.argv[1:], config_name, conf)))
            main()
    except (HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        _stop(f"error: {_explain(error, config_name, conf)}", EXIT_USAGE, tells)
    except OSError as error:
        if wants_traceback or not _is_shut(error):
            raise
        where = error.filename or "the files that a command leaves"
        line = f"error: can't write {where} ({error.strerror}): choose another folder, or free the disk"
        _stop(line, EXIT_ERROR, tells)
    except ValueError as error:
        if wants_traceback or not str(error).startswith("Config group override must be"):
            raise
        groups = [argument.removesuffix("=null") for argument in sys.argv[1:] if argument.endswith("=null")]
        _stop(
            f"error: a group can't be null; leave it out with {' '.join(f'~{group}' for group in groups)}",
            EXIT_USAGE,
            tells,
        )


@contextmanager
def one_line_errors(reraise: bool = False, tells: bool = True) -> Iterator[None]:
    """Turns an `AgeGenderError` or a Ctrl-C inside into one line on standard error and an exit code.

    A job's own code stands inside one too: Hydra would print its overrides before passing the error on.

    Args:
        reraise: Leave the errors alone; for jobs of a multirun, where Hydra decides what becomes of the others. Only
            an interruption becomes a KeyboardInterrupt, which ends them all.
        tells: Print the line; of several processes that stop for the same reason, one does.
    """
    try:
        yield
    except (AgeGenderError, KeyboardInterrupt, TerminatedError) as error:
        if reraise:
            if isinstance(error, InterruptedRunError):  # Hydra would go on with the next job
                raise KeyboardInterrupt(str(error)) from error
            raise
        if isinstance(error, TerminatedError):
            _stop(str(error), EXIT_TERMINATED, tells)
        if isinstance(error, InterruptedRunError | KeyboardInterrupt):
            _stop(str(error) or "interrupted", getattr(error, "code", EXIT_INTERRUPTED), tells)
        _stop(f"error: {error}", EXIT_ERROR, tells)


def _stop(line: str, code: int, tells: bool = True) -> None:
    if tells:
        print(line, file=sys.stderr)
    elif code in (EXIT_ERROR, EXIT_USAGE):
        let_the_first_tell()
    sys.exit(code)


def _is_shut(error: OSError) -> bool:
    """Tells whether a file or folder can't be written to, which Hydra leaves to the system to say."""
    shut = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
    return error.errno in FULL or (bool(error.filename) and error.errno in shut)


def quoted(text: str) -> str:
    """Quotes for Hydra's grammar, and keeps OmegaConf from reading `${...}` as an interpolation.

    Both read a backslash as itself, except where it stands before what they would otherwise act on: `${` for OmegaConf,
    the quote for Hydra. Only there it is doubled.
    """
    literal = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), literal) + "'"


def resume_arguments(arguments: list[str], config_name: str = "train", conf: Path = Path("conf")) -> list[str]:
    """Expands `resume=<run folder or checkpoint>` so that the run continues where and as it was.

    The old run's own overrides come first, then the given ones; outputs go to the old run's folder. `resume=auto` finds
    the run itself (see `find_unfinished`): then the command holds as it is given, and must be that run's. Where there
    is none to continue, nothing of `resume=` is left. Anything else is returned unchanged.

    Raises:
        AgeGenderError: There is no run or checkpoint at that place, or no whole one.
    """
    if any(argument.startswith(LIGHTNINGS) for argument in arguments):
        return arguments  # the first process, which Lightning had start this one, has expanded them
    values = [argument.split("=", 1)[1] for argument in arguments if re.match(r"\+*resume=", argument)]
    if not values or values[-1] in ("null", ""):
        return arguments
    if any(re.fullmatch(r"-m|--multirun|\+*sweep=(?!null$).+", argument) for argument in arguments):
        raise AgeGenderError("resume= continues one run; it can't be part of a multirun (-m)")
    fresh = [argument for argument in arguments if not re.match(r"\+*resume=", argument)]
    if values[-1] == AUTO:
        if launched(arguments=arguments) and not any(re.match(r"\+*hydra\.run\.dir=", item) for item in fresh):
            # each looks for itself, and the first may be at work in the run by the time that the others look
            raise AgeGenderError("resume=auto of several processes needs to be told the folder: add hydra.run.dir=...")
        found = find_unfinished(fresh, config_name, conf)
        checkpoint = newest_whole(found) if found else None
        if found is None or checkpoint is None:
            return fresh
        command = [argument for argument in fresh if not re.match(r"\+*(weights|hydra\.run\.dir)=", argument)]
        return [*command, *_continuing(found, checkpoint, command)]
    given = Path(values[-1].strip("'\""))
    run = run_folder(given)
    saved = run / ".hydra" / "overrides.yaml"
    if not saved.is_file():
        raise AgeGenderError(
            f"resume={given}: {saved} is missing, so the run's settings are unknown; use weights= instead"
        )
    from omegaconf import OmegaConf

    # a stranger's record extends no trust; see `trust.py`
    dropped = r"[+~]*(resume|weights|trust|hydra\.)"
    kept = [str(item) for item in OmegaConf.load(saved) if not re.match(dropped, str(item))]
    return [*kept, *fresh, *_continuing(run, _checkpoint(given, run), kept)]


def _continuing(run: Path, checkpoint: Path, kept: list[str]) -> list[str]:
    # Hydra would replace the run's record before anything was checked: `run` does it when the run may continue.
    outputs = [f"hydra.run.dir={quoted(str(run))}", "hydra.output_subdir=null"]
    outputs += ["hydra.mode=RUN"] * any(item.startswith("sweep=") for item in kept)  # a sweep's job, not the sweep
    return [f"resume={quoted(str(checkpoint))}", *outputs]


def run_folder(path: Path) -> Path:
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
    checkpoint = given if given.is_file() else newest_whole(run)
    if checkpoint is None:
        last = run / "checkpoints" / "last.ckpt"
        lacking = "whole checkpoint" if last.parent.is_dir() and any(last.parent.glob("*.ckpt")) else "checkpoint"
        raise AgeGenderError(f"resume={given}: there is no {lacking} at {last}; start the run again")
    return checkpoint


def _explain(error: Exception, config_name: str, conf: Path) -> str:
    """Turns Hydra's messages into one line, with the nearest valid key where a key is unknown."""
    text = str(error)
    cause = f"{text} {error.__cause__ or ''}"
    unknown = re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", cause)
    if unknown:
        parent = unknown[2].rpartition(".")[0]
        node = _node(config_name, conf, parent)
        siblings = [str(key) for key in node]
        hint = nearest(unknown[1], siblings)
        if not hint.startswith("did you mean"):
            below = [
                (str(key), nearest(unknown[1], value)) for key, value in node.items() if isinstance(value, Mapping)
            ]
            places = [(key, found.split()[-1]) for key, found in below if found.startswith("did you mean")]
            hint = f"did you mean {'.'.join([*filter(None, [parent]), *places[0]])}" if places else hint
        if "_target_" in siblings and not hint.startswith("did you mean"):
            hint = f"if it is an argument of {parent}'s class, add it with +{unknown[2]}=..."
        return f"{unknown[2]} is not known; {hint}"
    missing = re.search(
        r"Could not find '(\S+)/([^'/]+)'.*?Available options in '[^']+':\s*(.*?)(?:Config search|$)", text, re.S
    )
    if missing:
        return f"{missing[1]}={missing[2]} is not known; {nearest(missing[2], missing[3].split())}"
    group = re.search(r"Could not override '([^']+)'\. No match in the defaults list", text)
    if group:
        return f"{group[1]} is not known; {nearest(group[1], map(str, _node(config_name, conf, '')))}"
    return " ".join(cause.split())


def _node(config_name: str, conf: Path, parent: str) -> Mapping[Any, Any]:
    """Returns what is below `parent` in the config with the groups that the command line chose, and nothing else."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        groups = [argument for argument in sys.argv[1:] if re.fullmatch(r"[a-z_/]+=[a-z_0-9]+", argument)]
        try:
            chosen = [choice for choice in groups if (conf / choice.split("=")[0]).is_dir()]
            config = compose(config_name, chosen, return_hydra_config=parent.startswith("hydra"))
        except HydraException:
            config = compose(config_name)
    node = OmegaConf.select(config, parent) if parent else config
    found: Any = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_dict(node) else {}
    return dict(found)
