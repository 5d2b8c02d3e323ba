"""Compatibility with Hydra 1.3 and 1.4, by public interfaces of both."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def version_base() -> dict[str, str]:
    """Return `version_base` for `hydra.main` and the compose API: 1.3's defaults; none for 1.4, which deprecates it."""
    import hydra

    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


def sweep_arguments(arguments: Sequence[str]) -> list[str]:
    """Add `hydra.mode=MULTIRUN` to a command line with a sweep config, such as `sweep=grid`.

    Hydra 1.4 reads the mode from the command line or the primary config only, and rejects a `conf/sweep/*.yaml` that
    changes it; Hydra 1.3 reads it there.
    """
    chosen = [argument.partition("=")[2] for argument in arguments if re.match(r"\+*sweep=", argument)]
    sweeps = bool(chosen) and chosen[-1] not in ("null", "")
    has_mode = any(re.match(r"-m$|--multirun$|\+*hydra\.mode=", argument) for argument in arguments)
    return [*arguments, *["hydra.mode=MULTIRUN"] * (sweeps and not has_mode)]


def allow_list(packages: Iterable[str]) -> dict[str, Any]:
    """Return the allow-list argument of `instantiate` in Hydra 1.4; no argument for 1.3.

    Args:
        packages: Allowed packages, each with a trailing dot.
    """
    from hydra.utils import instantiate

    name = "_execution_whitelist_"  # Hydra 1.3 would pass it to the class
    return {name: _patterns(packages)} if name in inspect.signature(instantiate).parameters else {}


def allowing(packages: Iterable[str]) -> AbstractContextManager[Any]:
    """Set the allow-list of Hydra 1.4 for its own objects: callbacks, sweepers, launchers and log handlers.

    Args:
        packages: Allowed packages, each with a trailing dot.
    """
    import hydra.utils

    whitelist = getattr(hydra.utils, "execution_whitelist", None)
    context: AbstractContextManager[Any] = whitelist(_patterns(packages)) if whitelist else nullcontext()
    return context


def _patterns(packages: Iterable[str]) -> list[str]:
    return [f"{package}*" for package in packages]
