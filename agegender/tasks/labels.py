"""The labels that tasks need from the data; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agegender.errors import require


def labels_of(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str] | None]:
    """Return the label columns that tasks need, and the names of their classes; None for a number.

    Args:
        tasks: Name to config node, `tasks` of the config; None for a task that was removed.

    Raises:
        AgeGenderError: A task has no label, its classes are no names, or two tasks give a label different classes.
    """
    labels: dict[str, list[str] | None] = {}
    for name, node in tasks.items():
        if node is None:
            continue
        require(isinstance(node, Mapping), f"tasks.{name}={node} is no task; ~tasks.{name} removes it")
        label: Any = node.get("label")
        require(isinstance(label, str) and label != "", f"tasks.{name}.label={label} must be the name of a label")
        classes = _class_names(f"tasks.{name}.classes", node.get("classes"))
        known = labels.setdefault(label, classes)
        require(known == classes, f"tasks.{name}.classes={classes}: another task gives {label} the classes {known}")
    return labels


def _class_names(key: str, given: Any) -> list[str] | None:
    if given is None:
        return None
    fits = isinstance(given, list | tuple) and all(isinstance(name, str) for name in given)
    require(fits, f"{key}={given} must be a list of names: quote words such as 'no' and numbers such as '1'")
    folded = {name.strip().casefold() for name in given}
    require(len(folded) == len(given) >= 2 and "" not in folded, f"{key}={given} must be two or more different names")
    return list(given)
