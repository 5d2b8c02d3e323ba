"""Trains and tests a model: `python train.py experiment=quickstart`; `python train.py --help` lists the settings."""

from agegender.cli.commands import start  # @hydra.main stands in there: Hydra's completion for fish looks for it here

if __name__ == "__main__":
    start("train")
