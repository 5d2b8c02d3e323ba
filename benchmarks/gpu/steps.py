"""The steps in the order in which they run, the most informative first, each with its time limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.gpu import floors, trainings
from benchmarks.gpu.figures import Recorder
from benchmarks.gpu.runner import Setup


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        run: The function that measures.
        limit: Time limit in seconds; what was measured until then is kept.
    """

    run: Callable[[Setup, Recorder], None]
    limit: float


STEPS = {
    "smoke": Step(trainings.smoke, 120),
    "classic": Step(trainings.classic, 120),
    "synchronization": Step(trainings.synchronization, 60),
    "kernels": Step(trainings.kernels, 60),
    "floors": Step(floors.floors, 30),
    "face": Step(trainings.face, 300),
    "small": Step(trainings.small, 300),
    "settings": Step(trainings.settings, 180),
    "predicting": Step(trainings.predicting, 60),
    "earlier": Step(trainings.earlier, 600),
}
