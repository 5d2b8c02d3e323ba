"""Answers for pictures in a browser: `python -m agegender.prediction.web`; `--help` lists the settings."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from agegender.cli import launch, one_line_errors, quoted
from agegender.errors import missing_package

_CONF = Path(__file__).parent  # inside the package, so that it works wherever that is installed


def web_arguments(arguments: Sequence[str]) -> list[str]:
    """Rewrites a command line so that a path or an address reaches the config as it is: Hydra's grammar has its own."""
    return [_plain(argument) for argument in arguments]


def _plain(argument: str) -> str:
    key, _, value = argument.partition("=")
    return f"{key}={quoted(value)}" if key in ("weights", "host") and value[:1] not in ("", "'", '"') else argument


@hydra.main(version_base="1.3", config_path=str(_CONF), config_name="web")
def main(config: DictConfig) -> None:
    """Serves until Ctrl-C."""
    from agegender.signatures import check_call

    with one_line_errors():
        try:
            from agegender.prediction.web.serve import serve  # and with it torch and the web's packages
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in ("starlette", "uvicorn", "python_multipart", "h11"):
                raise
            raise missing_package("the page", error, "web") from None
        settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        check_call("", settings, serve)
        serve(**settings)


if __name__ == "__main__":
    sys.argv[1:] = web_arguments(sys.argv[1:])
    launch(main, "web", _CONF)
