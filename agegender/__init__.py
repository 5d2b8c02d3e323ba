"""Age and gender from faces: training, measuring and using models on UTKFace."""

__version__ = "0.1.0"
