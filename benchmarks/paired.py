"""Two things timed in turn, A B A B ...: on a shared machine, their ratio can be trusted where their times can't."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Paired:
    """Rates of two things, measured in turn.

    Attributes:
        name: What is compared with what, in a few words.
        ours: Rate of the first in every round, in items per second.
        theirs: Rate of the second, likewise.
    """

    name: str
    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """Median over the rounds of how many times faster the first is than the second."""
        return statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))

    def __str__(self) -> str:
        """Return a line: the ratio with its range over the rounds, and the median rates."""
        rounds = sorted(a / b for a, b in zip(self.ours, self.theirs, strict=True))
        medians = f"{statistics.median(self.ours):,.1f} against {statistics.median(self.theirs):,.1f} per second"
        return (
            f"{self.name}: {self.ratio:.2f}x ({rounds[0]:.2f} to {rounds[-1]:.2f} in {len(rounds)} rounds; {medians})"
        )


def in_turn(name: str, ours: Callable[[], int], theirs: Callable[[], int], rounds: int = 5, warm_up: int = 1) -> Paired:
    """Times two functions in turn.

    Args:
        name: What is compared with what.
        ours: Does a piece of work and returns how many items it was (images, runs, ...).
        theirs: The same for the other side; its pieces may be larger or smaller.
        rounds: Pairs that count.
        warm_up: Pairs before them that don't.
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
