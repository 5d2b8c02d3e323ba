"""Predict age and gender of the faces in images: `python predict.py img=face.jpg`; `--help` lists the settings."""

from agegender.cli.commands import start  # it runs @hydra.main, which Hydra's fish completion searches for in this file

if __name__ == "__main__":
    start("predict")
