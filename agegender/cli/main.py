"""The edge between a command line and the code: how a command starts, errors in one line, and exit codes."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from agegender.config.hydra_targets import enforce_allowlist
from agegender.config.hydra_versions import version_base
from agegender.config.overrides import config_dir, path_overrides
from agegender.config.trust import pop_trust
from agegender.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    EXIT_USAGE,
    AgeGenderError,
    InterruptedRunError,
    SigtermExit,
    did_you_mean,
)
from agegender.system.files import DISK_FULL


def run_command(
    function: Callable[[DictConfig], Any],
    config_name: str,
    rewrite: Callable[[Sequence[str]], list[str]] = path_overrides,
) -> None:
    """Runs a command with the settings of the command line, in `sys.argv`, and ends the process if it fails.

    A user's mistake ends in one line and a non-zero exit code.

    Args:
        function: What to do with the composed config; what it returns is what a sweep minimizes.
        config_name: The command's config in `conf/`.
        rewrite: Makes the command line one that Hydra reads as a person means it.
    """
    from agegender.config.compose import CONF, expand_homes, register_plugins

    def job(config: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        with report_errors(reraise=HydraConfig.get().mode is RunMode.MULTIRUN):
            expand_homes(config)
            return function(config)

    with _hydras_errors_in_one_line(config_name):
        register_plugins()
        sys.argv[1:] = rewrite(pop_trust(sys.argv[1:]))
        hydra.main(**version_base(), config_path=str(CONF), config_name=config_name)(job)()


def call_with_config(function: Callable[..., Any], config: DictConfig) -> Any:
    """Calls a function with the settings of a config, which are held against its signature first.

    Raises:
        AgeGenderError: A setting is unknown or of the wrong type.
    """
    from agegender.config.validation import validate_kwargs

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    validate_kwargs("", settings, function)
    return function(**settings)


@contextmanager
def _hydras_errors_in_one_line(config_name: str) -> Iterator[None]:
    """Turns what Hydra or the system says about a command line into one line and an exit code."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what goes wrong instead of printing and exiting itself
    try:
        with report_errors(), enforce_allowlist():
            yield
    except (HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        _stop(f"error: {explain(error, config_name, sys.argv[1:])}", EXIT_USAGE)
    except OSError as error:
        if wants_traceback or not _is_shut(error):
            raise
        where = error.filename or "the files that a command leaves"
        line = f"error: can't write {where} ({error.strerror}): choose another folder, or free the disk"
        _stop(line, EXIT_ERROR)
    except ValueError as error:
        if wants_traceback or not str(error).startswith("Config group override must be"):
            raise
        groups = [argument.removesuffix("=null") for argument in sys.argv[1:] if argument.endswith("=null")]
        _stop(
            f"error: a group can't be null; leave it out with {' '.join(f'~{group}' for group in groups)}",
            EXIT_USAGE,
        )


@contextmanager
def report_errors(reraise: bool = False) -> Iterator[None]:
    """Turns an `AgeGenderError` or a Ctrl-C inside into one line on standard error and an exit code.

    A job's own code stands inside one too: Hydra would print its overrides before passing the error on.

    Args:
        reraise: Leave the errors alone; for jobs of a multirun, where Hydra decides what becomes of the others. Only
            an interruption becomes a KeyboardInterrupt, which ends them all.
    """
    try:
        yield
    except (AgeGenderError, KeyboardInterrupt, SigtermExit) as error:
        if reraise:
            if isinstance(error, InterruptedRunError):  # Hydra would go on with the next job
                raise KeyboardInterrupt(str(error)) from error
            raise
        if isinstance(error, SigtermExit):
            _stop(str(error), EXIT_TERMINATED)
        if isinstance(error, InterruptedRunError | KeyboardInterrupt):
            _stop(str(error) or "interrupted", getattr(error, "code", EXIT_INTERRUPTED))
        _stop(f"error: {error}", EXIT_ERROR)


def _stop(line: str, code: int) -> None:
    print(line, file=sys.stderr)
    sys.exit(code)


def _is_shut(error: OSError) -> bool:
    """Tells whether a file or folder can't be written to, which Hydra leaves to the system to say."""
    shut = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
    return error.errno in DISK_FULL or (bool(error.filename) and error.errno in shut)


def explain(error: Exception, config_name: str, arguments: Sequence[str]) -> str:
    """Turns Hydra's messages into one line, with the nearest valid key where a key is unknown.

    Args:
        error: Of Hydra or OmegaConf.
        config_name: The command's.
        arguments: Its command line, with the groups that it chose.
    """
    text = str(error)
    cause = f"{text} {error.__cause__ or ''}"
    # Hydra 1.4 puts a guess of its own between the two lines
    unknown = re.search(r"Key '([^']+)' is not in struct[^\n]*\s+(?:Did you mean[^\n]*\s+)?full_key: (\S+)", cause)
    if unknown:
        parent = unknown[2].rpartition(".")[0]
        node = _node(config_name, arguments, parent)
        siblings = [str(key) for key in node]
        hint = did_you_mean(unknown[1], siblings)
        if not hint.startswith("did you mean"):
            below = [
                (str(key), did_you_mean(unknown[1], value)) for key, value in node.items() if isinstance(value, Mapping)
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
        return f"{missing[1]}={missing[2]} is not known; {did_you_mean(missing[2], missing[3].split())}"
    group = re.search(r"Could not override '([^']+)'\. No match in the defaults list", text)
    if group:
        return f"{group[1]} is not known; {did_you_mean(group[1], map(str, _node(config_name, arguments, '')))}"
    bare = re.search(r"Error parsing override '(.+)'\s+missing EQUAL", text, re.S)
    if bare:
        return f"{bare[1]} is no setting; write name=value, and see --help"
    return " ".join(cause.split())


def _node(config_name: str, arguments: Sequence[str], parent: str) -> Mapping[Any, Any]:
    """Returns what is below `parent` in the config with the groups that the command line chose, and nothing else."""
    from agegender.config.compose import CONF, compose_command

    folder, with_hydra = config_dir(arguments), parent.startswith("hydra")
    groups = [argument for argument in arguments if re.fullmatch(r"[a-z_/]+=[a-z_0-9]+", argument)]
    chosen = [choice for choice in groups if (CONF / choice.split("=")[0]).is_dir()]
    try:
        config = compose_command(config_name, chosen, folder, with_hydra)
    except HydraException:
        config = compose_command(config_name, [], folder)
    node = OmegaConf.select(config, parent) if parent else config
    found: Any = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_dict(node) else {}
    return dict(found)
