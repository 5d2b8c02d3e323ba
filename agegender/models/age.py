"""The age codings by name: how an age becomes a target, a loss, an answer in years again, and a spread."""

from __future__ import annotations

from agegender.models.age_coding import AgeCoding
from agegender.models.age_distribution import Classes, Coral, LabelDistribution
from agegender.models.age_number import Huber, MeanAbsoluteError, MeanSquaredError

AGE_CODINGS: dict[str, type[AgeCoding]] = {
    "mae": MeanAbsoluteError,
    "mse": MeanSquaredError,
    "huber": Huber,
    "classes": Classes,
    "dldl": LabelDistribution,
    "coral": Coral,
}
