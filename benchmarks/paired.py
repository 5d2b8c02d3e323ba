"""Paired timing of two functions in turn, A B A B ...: on a shared machine, only the ratio is reproducible."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """Rates of two functions, measured in turn.

    Attributes:
        name: Short description of the comparison.
        ours: Rate of the first function in each round, in items per second.
        theirs: Rate of the second function in each round, in items per second.
    """

    name: str
    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """Median over the rounds of the first rate divided by the second."""
        return statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))

    def __str__(self) -> str:
        """Return the ratio with its range over the rounds, and the median rates, in a line."""
        rounds = sorted(a / b for a, b in zip(self.ours, self.theirs, strict=True))
        medians = f"{statistics.median(self.ours):,.1f} against {statistics.median(self.theirs):,.1f} per second"
        return (
            f"{self.name}: {self.ratio:.2f}x ({rounds[0]:.2f} to {rounds[-1]:.2f} in {len(rounds)} rounds; {medians})"
        )


def in_turn(name: str, ours: Callable[[], int], theirs: Callable[[], int], rounds: int = 5, warm_up: int = 1) -> Paired:
    """Time two functions in turn.

    Args:
        name: Short description of the comparison.
        ours: Processes some items and returns their number (images, runs, ...).
        theirs: The same for the baseline; its number of items may differ.
        rounds: Number of measured pairs.
        warm_up: Number of pairs before them that are discarded.
    """
    rates: tuple[list[float], list[float]] = ([], [])
    for number in range(warm_up + rounds):
        for work, kept in zip((ours, theirs), rates, strict=True):
            start = time.perf_counter()
            items = work()
            rate = items / (time.perf_counter() - start)
            if number >= warm_up:
                kept.append(rate)
    return Paired(name, *rates)
