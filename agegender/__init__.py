"""Age and gender from faces: training, measuring and using models on UTKFace."""

from typing import TYPE_CHECKING, Any

from agegender.version import __version__

if TYPE_CHECKING:
    from agegender.prediction.answers import Prediction
    from agegender.prediction.predictor import Predictor

__all__ = ["Prediction", "Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for only then: `train.py --help` answers without."""
    if name == "Predictor":
        from agegender.prediction.predictor import Predictor

        return Predictor
    if name == "Prediction":
        from agegender.prediction.answers import Prediction

        return Prediction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
