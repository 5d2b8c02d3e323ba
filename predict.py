"""Tells age and gender from pictures: `python predict.py img=face.jpg`; `--help` lists the settings."""

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from agegender.cli import EXIT_ERROR, launch, one_line_errors
from agegender.prediction.inputs import image_arguments


@hydra.main(version_base="1.3", config_path="conf", config_name="predict")
def main(config: DictConfig) -> None:
    """Answers for the pictures; the exit code says whether each got its answer."""
    from agegender.prediction.run import predict  # imports torch: `--help` and typing mistakes answer without it
    from agegender.signatures import check_call

    with one_line_errors():
        settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        check_call("", settings, predict)
        if not predict(**settings):
            sys.exit(EXIT_ERROR)


if __name__ == "__main__":
    sys.argv[1:] = image_arguments(sys.argv[1:])
    launch(main, "predict", Path(__file__).parent / "conf")
