"""Age and gender from faces: an honest, fast training framework on UTKFace."""

__version__ = "0.1.0"
