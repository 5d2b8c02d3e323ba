"""The label columns that the tasks of a config need; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def labels_of(tasks: Mapping[str, Mapping[str, Any] | None]) -> dict[str, list[str] | None]:
    """Return the label column of each task, with the names of its classes; None for a number."""
    nodes = [node for node in tasks.values() if node is not None]
    return {str(node["label"]): node.get("classes") for node in nodes if "label" in node}
