"""Models that predict ages and other labels from faces: training, evaluation and use, on UTKFace."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agegender.version import __version__

if TYPE_CHECKING:
    from agegender.api import TrainedRun, compose_config, train
    from agegender.data.datamodule import AgeGenderDataModule
    from agegender.prediction.prediction import Prediction
    from agegender.prediction.predictor import Predictor
    from agegender.training.module import AgeGenderModule

__all__ = [
    "AgeGenderDataModule",
    "AgeGenderModule",
    "Prediction",
    "Predictor",
    "TrainedRun",
    "__version__",
    "compose_config",
    "train",
]
_MODULES = {
    "AgeGenderDataModule": "agegender.data.datamodule",
    "AgeGenderModule": "agegender.training.module",
    "Prediction": "agegender.prediction.prediction",
    "Predictor": "agegender.prediction.predictor",
    "TrainedRun": "agegender.api",
    "compose_config": "agegender.api",
    "train": "agegender.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first access (PEP 562), so that `train.py --help` runs without torch."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
