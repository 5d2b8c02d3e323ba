"""What Hydra 1.4 wants to be told and 1.3 does not know; by public interfaces of both."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def version_base() -> dict[str, str]:
    """Returns the argument by which `hydra.main` and its like get 1.3's defaults; 1.4 has them and warns of it."""
    import hydra

    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


def sweep_arguments(arguments: Sequence[str]) -> list[str]:
    """Adds `hydra.mode=MULTIRUN` to a command line that chooses a sweep by name, as `sweep=grid`.

    Hydra 1.4 takes the mode from the command line or the primary config only, and refuses a `conf/sweep/*.yaml` that
    would change it; 1.3 reads it there.
    """
    chosen = [argument.partition("=")[2] for argument in arguments if re.match(r"\+*sweep=", argument)]
    sweeps = bool(chosen) and chosen[-1] not in ("null", "")
    has_mode = any(re.match(r"-m$|--multirun$|\+*hydra\.mode=", argument) for argument in arguments)
    return [*arguments, *["hydra.mode=MULTIRUN"] * (sweeps and not has_mode)]


def allow_list(packages: Iterable[str]) -> dict[str, Any]:
    """Returns Hydra 1.4's argument of `instantiate` with the packages that it may build from; none for 1.3.

    Args:
        packages: Each with a dot at its end.
    """
    from hydra.utils import instantiate

    name = "_execution_whitelist_"  # to 1.3 that would be an argument of the class
    return {name: _patterns(packages)} if name in inspect.signature(instantiate).parameters else {}


def allowing(packages: Iterable[str]) -> AbstractContextManager[Any]:
    """Lets Hydra 1.4 itself build from these packages, and only these: callbacks, sweepers, launchers, log handlers.

    Args:
        packages: Each with a dot at its end.
    """
    import hydra.utils

    make = getattr(hydra.utils, "execution_whitelist", None)
    found: AbstractContextManager[Any] = make(_patterns(packages)) if make else nullcontext()
    return found


def _patterns(packages: Iterable[str]) -> list[str]:
    return [f"{package}*" for package in packages]
