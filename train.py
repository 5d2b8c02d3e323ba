"""Train and test a model: `python train.py experiment=quickstart`; `python train.py --help` lists the settings."""

from agegender.cli.commands import start  # it runs @hydra.main, which Hydra's fish completion searches for in this file

if __name__ == "__main__":
    start("train")
