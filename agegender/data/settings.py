"""Check the settings of `data`, and build the datamodule of commands that need no training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agegender.config.allowlist import accepted_kwargs, kwargs_of, resolve
from agegender.config.validation import validate_kwargs
from agegender.data.sources.synthetic import generate_faces
from agegender.errors import require

if TYPE_CHECKING:
    from agegender.data.datamodule import AgeGenderDataModule

FOLDER = "agegender.data.datamodule.AgeGenderDataModule"  # default of `_target_`


def check_data(settings: Mapping[str, Any]) -> Callable[..., AgeGenderDataModule]:
    """Check the settings against the signature of the datamodule's class, and return the class.

    Args:
        settings: Settings of `conf/data`: the class as `_target_`, and its arguments.

    Raises:
        AgeGenderError: The class is not allowed, or a setting is unknown, missing or of the wrong type.
    """
    made: Callable[..., AgeGenderDataModule] = resolve({"_target_": FOLDER, **settings}, "data")
    require(
        not (getattr(made, "streamed", False) and "split" in settings),
        f"data.split={settings.get('split')}: packed faces have their pack's split; remove it or protocol=, or give it "
        "to agegender pack",
    )
    validate_kwargs("data", kwargs_of(settings), made)
    validate_kwargs("data.synthetic", settings.get("synthetic") or {}, generate_faces)
    return made


def streams(settings: Mapping[str, Any]) -> bool:
    """Return whether the faces come in a stream, in which none can be looked up by its row."""
    return bool(getattr(resolve({"_target_": FOLDER, **settings}, "data"), "streamed", False))


def folder_module(
    settings: Mapping[str, Any], refusal: str, labels: Mapping[str, Sequence[str] | None]
) -> AgeGenderDataModule:
    """Build the datamodule of a folder of images, for a command that reads the files themselves.

    Args:
        settings: Settings of `conf/data`.
        refusal: Error message for settings of packed shards.
        labels: Labels of the tasks, and their classes; None for a number.

    Raises:
        AgeGenderError: The settings are of packed shards, or one is invalid.
    """
    require(not streams(settings), refusal)
    made = check_data(settings)
    return made(**kwargs_of(settings), **accepted_kwargs(made, labels=labels))
