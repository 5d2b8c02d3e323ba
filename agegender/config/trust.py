"""The packages on the allow-list: built-in ones, installed plug-ins, and packages that the user trusts.

A config or a checkpoint may come from somebody else, so neither can extend the list. The user extends it by
`trust=my_pkg` on the command line or by `AGEGENDER_TRUST=my_pkg,other_pkg` in the environment. An installed plug-in
extends it by an entry point in the group `agegender.plugins`, whose value is its package.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from agegender.errors import AgeGenderError, require

# Each with a trailing dot. Of timm only networks and optimizers: its other modules read and write files.
BUILT_IN = (
    "agegender.",
    "lightning.pytorch.",
    "torch.optim.",
    "torchmetrics.",
    "torchvision.transforms.",
    "timm.models.",
    "timm.optim.",
)
VARIABLE = "AGEGENDER_TRUST"
ENTRY_POINTS = "agegender.plugins"
# Packages with functions that load pickles, or download and run code.
_UNSAFE_PACKAGES = ("torch", "torchvision", "lightning", "numpy", "joblib", "hydra", "omegaconf", "timm", "agegender")


def pop_trust(arguments: list[str]) -> list[str]:
    """Remove `trust=my_pkg[,other_pkg]` from a command line, and trust these packages in this and in child processes.

    The setting is not passed to Hydra, so it is recorded neither in a run nor in a sweep.

    Args:
        arguments: Command-line arguments, without the program.

    Returns:
        The arguments without `trust=`.

    Raises:
        AgeGenderError: A name is not a package name, or the package can't be trusted as a whole.
    """
    values = [argument.partition("=")[2] for argument in arguments if re.match(r"\+*trust=", argument)]
    names = [name for value in values for name in _names(value.strip("'\"[]"))]
    if names:
        # The processes of a distributed training or of a sweep's launcher inherit the environment.
        os.environ[VARIABLE] = ",".join(dict.fromkeys([*_names(os.environ.get(VARIABLE, "")), *names]))
        trusted_by_user()
    return [argument for argument in arguments if not re.match(r"\+*trust=", argument)]


def trusted_by_user() -> tuple[str, ...]:
    """Return the packages of `trust=` and `AGEGENDER_TRUST`, each with a trailing dot.

    Raises:
        AgeGenderError: A name is not a package name, or the package can't be trusted as a whole.
    """
    names = _names(os.environ.get(VARIABLE, ""))
    for name in names:
        require(
            all(part.isidentifier() for part in name.split(".")),
            f"trust={name} is not a package name: give the name that is imported, as in trust=my_pkg",
        )
        require(
            name.split(".")[0] not in sys.stdlib_module_names,
            f"trust={name} is refused: modules of Python's standard library can run any program; remove it",
        )
        require(
            name not in _UNSAFE_PACKAGES,
            f"trust={name} is refused: some of its functions can run code from files; give the module that you need, "
            f"as in trust={name}.nn",
        )
    return tuple(f"{name}." for name in names)


def extensions() -> tuple[str, ...]:
    """Return the packages of the user and of installed plug-ins, each with a trailing dot."""
    return (*trusted_by_user(), *_plugins())


@cache
def _plugins() -> tuple[str, ...]:
    """Return the packages that installed distributions declare as plug-ins, each with a trailing dot."""
    return tuple(dict.fromkeys(f"{point.module}." for point in entry_points(group=ENTRY_POINTS)))


def add_working_dir() -> None:
    """Append the working directory to `sys.path` if a package that the user trusts is not installed."""
    for name in trusted_by_user():
        if not is_installed(name.split(".")[0]):
            sys.path.append(str(Path.cwd()))  # last, so that it shadows no installed package
            importlib.invalidate_caches()
            return


def is_installed(package: str) -> bool:
    """Return whether a top-level package can be imported, without importing it."""
    if package in sys.modules:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ValueError, ImportError):
        return False


def refusal(key: str, target: str) -> AgeGenderError:
    """Return the error for a target outside the allowed packages; the message contains the setting that trusts it.

    Args:
        key: Dotted key of the target in the config.
        target: Dotted name of the class.
    """
    package = target.split(".")[0]
    line = f"{key}: {target} is refused; "
    if package in (*sys.stdlib_module_names, *_UNSAFE_PACKAGES) or not package.isidentifier():
        return AgeGenderError(f"{line}a config may only use classes of {', '.join(name[:-1] for name in BUILT_IN)}")
    if not is_installed(package) and not (Path.cwd() / package).is_dir() and not Path(f"{package}.py").is_file():
        return AgeGenderError(
            f"{line}the package {package} is not installed here: install it, and if you trust it, add trust={package} "
            f"to the command line"
        )
    return AgeGenderError(
        f"{line}the package {package} is not trusted: if you trust it, add trust={package} to the command line, or set "
        f"{VARIABLE}={package}"
    )


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]
