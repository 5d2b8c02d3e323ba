"""Measured values of a step, written one by one, so that a step that is stopped keeps those before."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured value.

    Attributes:
        name: What was measured.
        value: The value; text for a table of names.
        unit: Its unit.
        goal: The goal, if there is one.
        most: Whether the goal is a maximum; otherwise it is a minimum.
        command: The command that was measured; empty for a measurement in the step itself.
    """

    name: str
    value: float | str
    unit: str = ""
    goal: float | None = None
    most: bool = True
    command: str = ""

    @property
    def verdict(self) -> str:
        """`met` or `missed`; empty without a goal."""
        if self.goal is None or isinstance(self.value, str):
            return ""
        return "met" if (self.value <= self.goal) == self.most or self.value == self.goal else "missed"


class Recorder:
    """Append the figures of one step to a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        """Initialize with the file's path."""
        self.path = path

    def __call__(self, name: str, value: float | str, unit: str = "", **more: Any) -> None:
        """Append one figure; see `Figure` for the arguments."""
        figure = Figure(name, value, unit, **more)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(figure)) + "\n")
        print(f"{name}: {value} {unit} {figure.verdict}".rstrip(), flush=True)


def read_figures(path: Path) -> list[Figure]:
    """Return the figures that a step has written; empty if it wrote none."""
    if not path.exists():
        return []
    return [Figure(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
