"""Which datamodule do the settings of `data` speak of? A folder's is built in memory, packed shards are streamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agegender.data.datamodule import AgeGenderDataModule
from agegender.data.streaming import StreamingDataModule
from agegender.signatures import check_named

DATA_MODULES: dict[str, type[AgeGenderDataModule]] = {"folder": AgeGenderDataModule, "streaming": StreamingDataModule}


def choose(data: Mapping[str, Any]) -> tuple[type[AgeGenderDataModule], dict[str, Any]]:
    """Returns the class that `data.source` names, a folder's where nothing does, and its arguments.

    Raises:
        AgeGenderError: There is none of that name.
    """
    source = data.get("source", "folder")
    check_named("data.source", source, DATA_MODULES)
    return DATA_MODULES[source], {name: value for name, value in data.items() if name != "source"}
