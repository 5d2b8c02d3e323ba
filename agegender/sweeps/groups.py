"""Jobs that differ in nothing but seed and fold form a group, whose metrics have a mean, a deviation, an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agegender.evaluation.statistics.student import Spread, spread_of
from agegender.sweeps.records import setting_key, varied_settings

# Settings that repeat a training: its random numbers, or its split.
FOLD = "data.fold"
REPEATS = ("seed", FOLD, "data.split_seed")


@dataclass(frozen=True)
class Group:
    """Jobs with the same settings, apart from seed and fold.

    Attributes:
        settings: Their overrides that other jobs don't share.
        jobs: Numbers of the finished jobs.
        failed: Numbers of the failed jobs.
        score: Spread of the monitored metric over the finished jobs; None without any.
        metrics: Spread of each final metric that all finished jobs have: `val/...` and, if tested, `test/...`.
    """

    settings: tuple[str, ...]
    jobs: tuple[int, ...]
    failed: tuple[int, ...]
    score: Spread | None
    metrics: dict[str, Spread]

    def to_json(self) -> dict[str, Any]:
        """Return the group in plain types."""
        return asdict(self)


def group_jobs(
    jobs: Sequence[Mapping[str, Any]], varied: Sequence[str], metrics: Mapping[int, Mapping[str, float]], mode: str
) -> list[Group]:
    """Return the groups of a sweep's jobs, best mean score first; none if no group has several jobs.

    Args:
        jobs: Records of the jobs.
        varied: Keys of the settings that the sweep varies.
        metrics: Final metrics of each finished job, by its number.
        mode: `max` if a higher score is better, else `min`.
    """
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    others = [key for key in varied if key not in REPEATS]
    for job in jobs:
        found.setdefault(tuple(varied_settings(job["overrides"], others)), []).append(job)
    groups = [_group(settings, members, metrics) for settings, members in found.items()]
    sign = -1 if mode == "max" else 1
    groups.sort(key=lambda group: sign * group.score.mean if group.score else math.inf)
    return groups if any(len(members) > 1 for members in found.values()) else []


def _group(
    settings: tuple[str, ...], jobs: Sequence[Mapping[str, Any]], metrics: Mapping[int, Mapping[str, float]]
) -> Group:
    finished = sorted((job for job in jobs if not job["error"]), key=lambda job: int(job["job"]))
    tables = [metrics[job["job"]] for job in finished]
    shared = [name for name in (tables[0] if tables else ()) if all(name in table for table in tables)]
    return Group(
        settings,
        jobs=tuple(job["job"] for job in finished),
        failed=tuple(sorted(job["job"] for job in jobs if job["error"])),
        score=spread_of([job["score"] for job in finished]) if finished else None,
        metrics={name: spread_of([table[name] for table in tables]) for name in shared},
    )


def final_metrics(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the validation and test metrics of a `metrics.json`, without those that are undefined."""
    named = ((key, value) for key, value in results.items() if key.startswith(("val/", "test/")))
    return {key: float(value) for key, value in named if value is not None}


def numeric_setting(varied: Sequence[str], jobs: Sequence[Mapping[str, Any]]) -> tuple[str, dict[int, float]] | None:
    """Return the only setting that varies beside seed and fold, with its value by job number.

    None if there is no such setting, several of them, or one with values that are not numbers.
    """
    others = [key for key in varied if key not in REPEATS]
    if len(others) != 1:
        return None
    values: dict[int, float] = {}
    for job in jobs:
        (text,) = (item.partition("=")[2] for item in job["overrides"] if setting_key(item) == others[0])
        try:
            values[job["job"]] = float(text)
        except ValueError:
            return None
    return (others[0], values) if all(map(math.isfinite, values.values())) else None
