"""Are the settings of `data` right? And the datamodule that they name, for commands that need no training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from agegender.config.allowlist import kwargs_of, resolve
from agegender.config.validation import validate_kwargs
from agegender.data.sources.synthetic import generate_faces
from agegender.errors import require

if TYPE_CHECKING:
    from agegender.data.datamodule import AgeGenderDataModule

FOLDER = "agegender.data.datamodule.AgeGenderDataModule"  # what settings without `_target_` mean


def check_data(settings: Mapping[str, Any]) -> Callable[..., AgeGenderDataModule]:
    """Returns the datamodule's class, once its settings have been held against its signature.

    Args:
        settings: Of `conf/data`: the class as `_target_`, and its arguments.

    Raises:
        AgeGenderError: The class is not allowed, or a setting is unknown, missing or of the wrong type.
    """
    made: Callable[..., AgeGenderDataModule] = resolve({"_target_": FOLDER, **settings}, "data")
    validate_kwargs("data", kwargs_of(settings), made, provided=("augment", "seed", "labels"))
    validate_kwargs("data.synthetic", settings.get("synthetic") or {}, generate_faces, provided=("folder", "progress"))
    return made


def streams(settings: Mapping[str, Any]) -> bool:
    """Tells whether the faces come as a stream, in which no single face can be looked up by its place."""
    return bool(getattr(resolve({"_target_": FOLDER, **settings}, "data"), "streamed", False))


def folder_module(settings: Mapping[str, Any], refusal: str) -> AgeGenderDataModule:
    """Builds the datamodule of a folder of images, for a command that looks at the files themselves.

    Args:
        settings: Of `conf/data`.
        refusal: What is said where they speak of packed shards.

    Raises:
        AgeGenderError: They do, or a setting doesn't fit.
    """
    require(not streams(settings), refusal)
    return check_data(settings)(**kwargs_of(settings))
