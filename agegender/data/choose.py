"""Which datamodule do the settings of `data` speak of? A folder's is built in memory, packed shards are streamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.streaming import StreamingDataModule
from agegender.data.synthetic import generate_faces
from agegender.errors import require
from agegender.signatures import check_call, check_named

DATA_MODULES: dict[str, type[AgeGenderDataModule]] = {"folder": AgeGenderDataModule, "streaming": StreamingDataModule}


def choose(data: Mapping[str, Any]) -> tuple[type[AgeGenderDataModule], dict[str, Any]]:
    """Returns the class that `data.source` names, a folder's where nothing does, and its arguments.

    Raises:
        AgeGenderError: There is none of that name.
    """
    source = data.get("source", "folder")
    check_named("data.source", source, DATA_MODULES)
    return DATA_MODULES[source], {name: value for name, value in data.items() if name != "source"}


def folder_module(data: Mapping[str, Any], refusal: str) -> AgeGenderDataModule:
    """Builds the datamodule of a folder of images, for a command that looks at the files themselves.

    Args:
        data: Its arguments.
        refusal: What is said where `data` speaks of packed shards.

    Raises:
        AgeGenderError: It does, or a setting doesn't fit.
    """
    require("source" not in data, refusal)
    check_call("data", data, AgeGenderDataModule, given=("augment", "seed"))
    check_call("data.generate", data.get("generate") or {}, generate_faces, given=("folder", "progress"))
    return AgeGenderDataModule(**data)
