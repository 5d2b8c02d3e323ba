"""Tells age and gender from pictures: `python predict.py img=face.jpg`; `--help` lists the settings."""

from agegender.cli.commands import start  # @hydra.main stands in there: Hydra's completion for fish looks for it here

if __name__ == "__main__":
    start("predict")
