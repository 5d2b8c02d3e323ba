"""How a command starts: Hydra, one-line errors and exit codes."""

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
from agegender.config.overrides import config_dir, options_last, path_overrides
from agegender.config.trust import pop_trust
from agegender.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    AgeGenderError,
    InterruptedRunError,
    SignalExit,
    did_you_mean,
)
from agegender.system.files import DISK_FULL
from agegender.system.signals import handling, raise_exit
from agegender.system.terminal import print_page, printable


def run_command(
    function: Callable[[DictConfig], Any],
    config_name: str,
    rewrite: Callable[[Sequence[str]], list[str]] = path_overrides,
) -> None:
    """Run a command with the settings in `sys.argv`; exit with one line and a non-zero code on a user error.

    Args:
        function: The function that is called with the composed config; a sweep minimizes its return value.
        config_name: Name of the command's config in `conf/`.
        rewrite: Rewrites the command line for Hydra's grammar.
    """
    from agegender.config.compose import CONF, expand_homes, register_plugins

    def job(config: DictConfig) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        with report_errors(reraise=HydraConfig.get().mode is RunMode.MULTIRUN), handling(raise_exit):
            expand_homes(config)
            return function(config)

    with _report_hydra_errors(config_name):
        register_plugins()
        sys.argv[1:] = options_last(rewrite(pop_trust(sys.argv[1:])))
        if {"-h", "--help"} & {*sys.argv[1:]}:
            from agegender.cli.help import command_help

            print_page(command_help(config_name, sys.argv[1:]))
            return
        hydra.main(**version_base(), config_path=str(CONF), config_name=config_name)(job)()


def call_with_config(function: Callable[..., Any], config: DictConfig) -> Any:
    """Call a function with the settings of a config, after a check against its signature.

    Raises:
        AgeGenderError: A setting is unknown or has the wrong type.
    """
    from agegender.config.validation import validate_kwargs

    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    validate_kwargs("", settings, function)
    return function(**settings)


@contextmanager
def _report_hydra_errors(config_name: str) -> Iterator[None]:
    """Turn errors of Hydra and of the file system into one line on standard error and an exit code."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors, instead of printing them and exiting
    try:
        with report_errors(), enforce_allowlist():
            yield
    except (HydraException, OmegaConfBaseException) as error:
        if wants_traceback:
            raise
        _exit(f"error: {explain(error, config_name, sys.argv[1:])}", EXIT_USAGE)
    except OSError as error:
        if wants_traceback or not _is_write_error(error):
            raise
        path = error.filename or "the command's output"
        line = f"error: can't write {path} ({error.strerror}): choose another folder, or free the disk"
        _exit(line, EXIT_ERROR)
    except ValueError as error:
        if wants_traceback or not str(error).startswith("Config group override must be"):
            raise
        groups = [argument.removesuffix("=null") for argument in sys.argv[1:] if argument.endswith("=null")]
        _exit(
            f"error: a config group can't be null; remove it with {' '.join(f'~{group}' for group in groups)}",
            EXIT_USAGE,
        )


@contextmanager
def report_errors(reraise: bool = False) -> Iterator[None]:
    """Turn an `AgeGenderError` or a Ctrl-C into one line on standard error and an exit code.

    The code of a job runs inside a second one, because Hydra prints the job's overrides before it re-raises an error.

    Args:
        reraise: Re-raise errors, for jobs of a multirun, after which Hydra runs the other jobs. An interruption is
            re-raised as KeyboardInterrupt, which ends the multirun.
    """
    try:
        yield
    except (AgeGenderError, KeyboardInterrupt, SignalExit) as error:
        if reraise:
            ctrl_c = isinstance(error, SignalExit) and error.code == EXIT_INTERRUPTED
            if ctrl_c or isinstance(error, InterruptedRunError):  # Hydra would continue with the next job
                again = "; the same command again continues the sweep"
                raise KeyboardInterrupt(f"{str(error) or 'interrupted'}{again}") from error
            raise
        if isinstance(error, SignalExit):
            _exit(str(error), error.code)  # type: ignore[arg-type]
        if isinstance(error, InterruptedRunError | KeyboardInterrupt):
            _exit(str(error) or "interrupted", getattr(error, "code", EXIT_INTERRUPTED))
        _exit(f"error: {error}", EXIT_ERROR)


def _exit(line: str, code: int) -> None:
    print(printable(line), file=sys.stderr)  # a server's or a file's text may hold control codes
    sys.exit(code)


def _is_write_error(error: OSError) -> bool:
    """Return whether a file or folder can't be written to; Hydra doesn't handle such errors."""
    not_writable = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)
    return error.errno in DISK_FULL or (bool(error.filename) and error.errno in not_writable)


def explain(error: Exception, config_name: str, arguments: Sequence[str]) -> str:
    """Return a one-line message for an error of Hydra or OmegaConf, with the nearest valid key for an unknown one.

    Args:
        error: The error.
        config_name: Name of the command's config.
        arguments: Command-line arguments; the config groups among them determine the valid keys.
    """
    text = str(error)
    cause = f"{text} {error.__cause__ or ''}"
    # Hydra 1.4 has a "Did you mean" line between the two
    unknown = re.search(r"Key '([^']+)' is not in struct[^\n]*\s+(?:Did you mean[^\n]*\s+)?full_key: (\S+)", cause)
    if unknown:
        parent = unknown[2].rpartition(".")[0]
        node = _config_node(config_name, arguments, parent)
        siblings = [str(key) for key in node]
        hint = did_you_mean(unknown[1], siblings)
        if not hint.startswith("did you mean"):
            hints = [
                (str(key), did_you_mean(unknown[1], value)) for key, value in node.items() if isinstance(value, Mapping)
            ]
            nested = [(key, found.split()[-1]) for key, found in hints if found.startswith("did you mean")]
            hint = f"did you mean {'.'.join([*filter(None, [parent]), *nested[0]])}" if nested else hint
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
        return f"{group[1]} is not known; {did_you_mean(group[1], map(str, _config_node(config_name, arguments, '')))}"
    bare = re.search(r"Error parsing override '(.+)'\s+missing EQUAL", text, re.S)
    if bare:
        return f"{bare[1]} is not a setting; write name=value, and see --help"
    return " ".join(cause.split())


def _config_node(config_name: str, arguments: Sequence[str], parent: str) -> Mapping[Any, Any]:
    """Return the node `parent` of the config, composed with only the config groups of the command line."""
    from agegender.config.compose import CONF, compose_command

    folder, with_hydra = config_dir(arguments), parent.startswith("hydra")
    groups = [argument for argument in arguments if re.fullmatch(r"[a-z_/]+=[a-z_0-9]+", argument)]
    chosen = [choice for choice in groups if (CONF / choice.split("=")[0]).is_dir()]
    try:
        config = compose_command(config_name, chosen, folder, with_hydra)
    except HydraException:
        config = compose_command(config_name, [], folder)
    node = OmegaConf.select(config, parent) if parent else config
    container: Any = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_dict(node) else {}
    return dict(container)
