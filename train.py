"""Trains and tests a model: `python train.py experiment=quickstart`; `python train.py --help` lists the settings."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from agegender.cli import launch, one_line_errors


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float:
    """Runs one training; what it returns is what a sweep minimises."""
    from agegender.training.run import run  # imports torch: `--help` and typing mistakes answer without it

    with one_line_errors(reraise=HydraConfig.get().mode is RunMode.MULTIRUN):
        return run(config)


if __name__ == "__main__":
    launch(main, "train", Path(__file__).parent / "conf", resumes_runs=True)
