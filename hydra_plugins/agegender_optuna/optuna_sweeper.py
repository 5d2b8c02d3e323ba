"""The Hydra sweeper of `sweep=optuna`. Hydra imports this module in every command, so Optuna is imported lazily."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from agegender.errors import missing_extra


class OptunaSweeper(Sweeper):
    """Run the trials of an Optuna study as the jobs of a multirun, through any of Hydra's launchers.

    hydra-optuna-sweeper is no alternative: its releases for Hydra 1.3 need Optuna 2, and none of them prunes trials.
    """

    def __init__(
        self, n_trials: int, n_jobs: int, n_startup_trials: int, storage: str | None, params: Mapping[str, Any]
    ):
        """Store the settings, documented in `conf/hydra/sweeper/study.yaml`."""
        self.n_trials, self.n_jobs, self.n_startup_trials, self.storage = n_trials, n_jobs, n_startup_trials, storage
        self.params = {str(key): str(value) for key, value in params.items()}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Instantiate the launcher."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the study.

        Args:
            arguments: Overrides on the command line; they take precedence over `params`.
        """
        try:
            from agegender.sweeps.optuna.search import OptunaSearch
        except ImportError as error:
            raise missing_extra("sweep=optuna", error, "sweep") from None
        assert self.config and self.launcher and self.hydra_context  # set by `setup`
        OptunaSearch(self, self.config, self.launcher, self.hydra_context.config_loader).run(arguments)
