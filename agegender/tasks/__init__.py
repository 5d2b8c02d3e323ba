"""Tasks: what a network learns to predict, one for each label column.

The classes are imported at first use: `agegender.tasks.info` needs no PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agegender.tasks.age_distribution import BinnedAge, Coral, LabelDistribution
    from agegender.tasks.classification import Binary, Multiclass
    from agegender.tasks.number import NumberTask
    from agegender.tasks.regression import Regression
    from agegender.tasks.task import Task, TaskMetric

_HOMES = {
    "Binary": "classification",
    "BinnedAge": "age_distribution",
    "Coral": "age_distribution",
    "LabelDistribution": "age_distribution",
    "Multiclass": "classification",
    "NumberTask": "number",
    "Regression": "regression",
    "Task": "task",
    "TaskMetric": "task",
}
__all__ = [
    "Binary",
    "BinnedAge",
    "Coral",
    "LabelDistribution",
    "Multiclass",
    "NumberTask",
    "Regression",
    "Task",
    "TaskMetric",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
