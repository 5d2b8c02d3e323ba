"""Which packages may a config or a checkpoint build objects from? Built-in ones, plug-ins, and those a person names.

A config or a checkpoint may come from somebody else, so nothing that stands in one extends this list. A person does, by
`trust=my_pkg` on the command line or `AGEGENDER_TRUST=my_pkg,other_pkg` in the environment; a plug-in does by being
installed, with an entry point in the group `agegender.plugins` that names its package.
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

# Each with a dot at its end. Of timm, what holds networks and optimizers: the rest of it reads and writes files.
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
# Trusting all of one of these would let a config load pickles or download and run code.
_TOO_WIDE = ("torch", "torchvision", "lightning", "numpy", "joblib", "hydra", "omegaconf", "timm", "agegender")


def pop_trust(arguments: list[str]) -> list[str]:
    """Takes `trust=my_pkg[,other_pkg]` out of a command line, and trusts these packages in this process and its own.

    Hydra never sees the setting, so that neither a run's record nor a sweep's holds it.

    Args:
        arguments: The command line's, without the program.

    Returns:
        The arguments without `trust=`.

    Raises:
        AgeGenderError: A name that is no package's, or a package that can't be trusted as a whole.
    """
    typed = [argument.partition("=")[2] for argument in arguments if re.match(r"\+*trust=", argument)]
    names = [name for value in typed for name in _names(value.strip("'\"[]"))]
    if names:
        # in the environment, since the processes of a multi-device training or of a sweep's launcher inherit that
        os.environ[VARIABLE] = ",".join(dict.fromkeys([*_names(os.environ.get(VARIABLE, "")), *names]))
        trusted_by_user()
    return [argument for argument in arguments if not re.match(r"\+*trust=", argument)]


def trusted_by_user() -> tuple[str, ...]:
    """Returns the packages that `trust=` or `AGEGENDER_TRUST` names, each with a dot at its end.

    Raises:
        AgeGenderError: A name that is no package's, or a package that can't be trusted as a whole.
    """
    names = _names(os.environ.get(VARIABLE, ""))
    for name in names:
        require(
            all(part.isidentifier() for part in name.split(".")),
            f"trust={name} names no package: give its import name, as in trust=my_pkg",
        )
        require(
            name.split(".")[0] not in sys.stdlib_module_names,
            f"trust={name} is refused: Python's own modules are no parts of a training, and could do anything",
        )
        require(
            name not in _TOO_WIDE,
            f"trust={name} is refused: it holds loaders that could run foreign code; name the part of it that you "
            f"need, as in trust={name}.nn",
        )
    return tuple(f"{name}." for name in names)


def extensions() -> tuple[str, ...]:
    """Returns the packages of a person and of installed plug-ins, each with a dot at its end."""
    return (*trusted_by_user(), *_plugins())


@cache
def _plugins() -> tuple[str, ...]:
    """Returns the packages that installed distributions declare as plug-ins."""
    return tuple(dict.fromkeys(f"{point.module}." for point in entry_points(group=ENTRY_POINTS)))


def add_working_dir() -> None:
    """Makes the working folder's modules importable if a package that a person trusts is found nowhere else."""
    for name in trusted_by_user():
        if not is_installed(name.split(".")[0]):
            sys.path.append(str(Path.cwd()))  # at the end: it shadows nothing
            importlib.invalidate_caches()
            return


def is_installed(package: str) -> bool:
    """Tells whether a top-level package can be imported, without importing it."""
    if package in sys.modules:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ValueError, ImportError):
        return False


def refusal(key: str, target: str) -> AgeGenderError:
    """Returns the error for a target of a package that is not trusted; its line says how to trust it.

    Args:
        key: Where it stands in the config.
        target: The dotted name.
    """
    package = target.split(".")[0]
    line = f"{key}: {target} is refused; "
    if package in (*sys.stdlib_module_names, *_TOO_WIDE) or not package.isidentifier():
        return AgeGenderError(f"{line}a config builds from {', '.join(name[:-1] for name in BUILT_IN)} only")
    if not is_installed(package) and not (Path.cwd() / package).is_dir() and not Path(f"{package}.py").is_file():
        return AgeGenderError(
            f"{line}the package {package} is not installed here: install it, and if you trust it add trust={package} "
            f"to the command line"
        )
    return AgeGenderError(
        f"{line}a config or checkpoint can't vouch for {package}: if you trust it, add trust={package} to the command "
        f"line, or set {VARIABLE}={package}"
    )


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]
