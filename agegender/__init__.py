"""Age and gender from faces: training, measuring and using models on UTKFace."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agegender.prediction.predictor import Prediction, Predictor

__version__ = "0.1.0"
__all__ = ["Prediction", "Predictor"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and PyTorch with it: `train.py --help` answers without."""
    if name in __all__:
        from agegender.prediction import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
