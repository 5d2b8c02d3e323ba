"""The search loop of `sweep=optuna`: ask Optuna for trials, launch them as Hydra jobs, tell Optuna the results."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, Protocol

import optuna
from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from optuna import create_study
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import NonNegativeInt, PositiveInt

from agegender.config.validation import validate_type
from agegender.errors import AgeGenderError, require
from agegender.sweeps.optuna.pruning import PRUNED
from agegender.sweeps.optuna.report import print_study, write_study
from agegender.sweeps.optuna.space import Space, as_overrides, read_space, sample_point
from agegender.sweeps.optuna.storage import (
    INTERRUPTED,
    check_compatible,
    open_storage,
    requeue_trial,
    running_trial,
    study_lock,
)
from agegender.sweeps.records import JOB_RECORD, read_record
from agegender.sweeps.settings import comparable_settings
from agegender.tasks.monitor import find_monitor


class SearchOptions(Protocol):
    """The settings of a search, documented in `conf/hydra/sweeper/study.yaml`."""

    n_trials: int
    n_jobs: int
    n_startup_trials: int
    storage: str | None
    params: dict[str, str]


class OptunaSearch:
    """One `python train.py sweep=optuna`: adds trials to a study, which is created if needed."""

    def __init__(self, options: SearchOptions, config: DictConfig, launcher: Launcher, loader: ConfigLoader):
        """Check the options.

        Args:
            options: Settings of the search.
            config: Config of the multirun.
            launcher: Launcher of the trials' jobs.
            loader: Hydra's config loader, which composes the trials' configs.

        Raises:
            AgeGenderError: An option is out of range; the message names it.
        """
        self.options, self.config, self.launcher, self.loader = options, config, launcher, loader
        for name in ("n_trials", "n_jobs"):
            validate_type(f"hydra.sweeper.{name}", getattr(options, name), PositiveInt)
        validate_type("hydra.sweeper.n_startup_trials", options.n_startup_trials, NonNegativeInt)
        self.folder = Path(self.config.hydra.sweep.dir)
        self.where = options.storage or str(self.folder / "study.db")

    def run(self, arguments: list[str]) -> None:
        """Run the trials.

        Args:
            arguments: Overrides on the command line.

        Raises:
            AgeGenderError: The study can't be continued with these settings, or all trials of this command failed.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        fixed, space = read_space(self.options.params, arguments, self.loader)
        shared = self.loader.load_sweep_config(self.config, fixed)
        # Compose once before the study is created, so that a config error leaves nothing behind.
        self.loader.load_sweep_config(self.config, [*fixed, *as_overrides(sample_point(space))])
        tasks: Any = OmegaConf.to_container(self.config.tasks, resolve=True)
        monitor, mode = find_monitor(tasks, self.config.monitor)
        with study_lock(self.folder), open_storage(self.options.storage, self.folder) as storage:
            direction = StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE
            study = create_study(storage=storage, study_name=self.config.name, direction=direction, load_if_exists=True)
            check_compatible(study, comparable_settings(shared), space, self.where)
            self._check_folder(study)
            left = self._trials_left(study, space)
            study.sampler = self._sampler(len(study.get_trials(deepcopy=False)))
            started: list[int] = []
            try:
                while len(started) < left:
                    batch = [study.ask(space) for _ in range(min(self.options.n_jobs, left - len(started)))]
                    started += [trial.number for trial in batch]
                    self._launch(study, batch, fixed, space)
                self._conclude_running(study, started)
            finally:
                write_study(study, monitor, self.folder)
            print_study(study, monitor, self.folder, fixed)
            self._check_not_all_failed([study.get_trials(deepcopy=False)[number] for number in started])

    def _sampler(self, trials: int) -> TPESampler:
        # A continued study with the same sampler seed would propose its first trials again.
        seed, startup = self.config.seed + trials, self.options.n_startup_trials
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # constant_liar is experimental in Optuna 4
            return TPESampler(seed=seed, n_startup_trials=startup, constant_liar=self.options.n_jobs > 1)

    def _trials_left(self, study: Study, space: Space) -> int:
        """Re-enqueue interrupted trials and return the number of trials to run; log it for a continued study."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self._record_result(study, trial.number):
                requeue_trial(study, trial.number, space, died=True)
        finished = study.get_trials(deepcopy=False, states=_FINISHED)
        done = len([trial for trial in finished if trial.user_attrs.get("error") != INTERRUPTED])
        previous: int = study.user_attrs.get("trials", 0)
        total = done + self.options.n_trials if done >= previous else max(previous, self.options.n_trials)
        study.set_user_attr("trials", total)
        if finished:
            trials = f"{done} trial{'s' * (done != 1)}"
            print(f"continuing the study {self.where} with {trials}: {total - done} to run", flush=True)
        return total - done

    def _check_folder(self, study: Study) -> None:
        """Raise an error rather than overwrite the runs of a study whose database is gone."""
        runs = sorted(path.name for path in self.folder.glob("[0-9]*") if (path / ".hydra").is_dir())
        require(
            not runs or bool(study.get_trials(deepcopy=False)),
            f"{self.folder} holds runs ({', '.join(runs[:3])}, ...), but {self.where} has no trial: move the folder "
            "away, or start another study with name=...",
        )

    def _launch(self, study: Study, batch: list[Trial], fixed: list[str], space: Space) -> None:
        """Run trials as jobs. Results are read from the jobs' folders, so that they survive a failed launcher."""
        jobs = [[*fixed, *self._job_overrides(trial), *as_overrides(trial.params)] for trial in batch]
        died = "its process died"
        for trial in batch:
            print(f"trial {trial.number} ({' '.join(as_overrides(trial.params))}) starts", flush=True)
        try:
            self.launcher.launch(jobs, initial_job_idx=batch[0].number)
        except KeyboardInterrupt:
            for trial in batch:
                if not self._record_result(study, trial.number):
                    requeue_trial(study, trial.number, space, died=False)
            raise
        except Exception as error:  # a worker process of the launcher died, perhaps killed for its memory
            died += f": {error}"
        for trial in batch:
            # If one of several jobs died, the others may still be running; see `_conclude_running`.
            self._record_result(study, trial.number, died if len(batch) == 1 else None)
        write_study(study, self.config.monitor, self.folder, page=False)

    def _job_overrides(self, trial: Trial) -> list[str]:
        has_pruning = (self.config.get("callbacks") or {}).get("pruning") is not None
        return [f"hydra.sweep.subdir={trial.number}", *([f"callbacks.pruning.trial={trial.number}"] * has_pruning)]

    def _conclude_running(self, study: Study, started: list[int]) -> None:
        """Conclude trials that have finished meanwhile, and print those without a result."""
        running = [number for number in started if study.get_trials(deepcopy=False)[number].state is TrialState.RUNNING]
        for number in running:
            if not self._record_result(study, number):
                print(f"trial {number} has no result: its process died or still runs; the next command checks again")

    def _record_result(self, study: Study, number: int, otherwise: str | None = None) -> bool:
        """Report a trial's result to the study.

        Args:
            study: The study.
            number: Number of the trial.
            otherwise: Error of a trial whose job left no record; None to leave such a trial as it is.

        Returns:
            Whether a result was reported.
        """
        record = read_record(self.folder / str(number) / JOB_RECORD)
        if record is None and otherwise is None:
            return False
        trial = running_trial(study, number)
        score, error = (record["score"], record["error"]) if record else (None, otherwise)
        if error is None and not (isinstance(score, float) and math.isfinite(score)):
            error = f"its score is {score}"
        if error is not None:
            trial.set_user_attr("error", " ".join(error.split()))
            study.tell(number, state=TrialState.FAIL)
        elif PRUNED in trial.user_attrs:
            study.tell(number, state=TrialState.PRUNED)
        else:
            study.tell(number, score)
        self._print_result(study, number)
        return True

    def _print_result(self, study: Study, number: int) -> None:
        trial = study.get_trials(deepcopy=False)[number]
        result = "" if trial.value is None else f"{self.config.monitor} {trial.value:.4f}"
        if trial.state is TrialState.FAIL:
            result = f"failed: {trial.user_attrs['error']}"
        elif trial.state is TrialState.PRUNED:
            result = f"pruned after epoch {trial.user_attrs[PRUNED]} at {result}"
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        best = f" (best {study.best_value:.4f}, trial {study.best_trial.number})" if done else ""
        print(f"trial {number}: {result}{best}", flush=True)

    @staticmethod
    def _check_not_all_failed(trials: list[FrozenTrial]) -> None:
        failed = [trial for trial in trials if trial.state is TrialState.FAIL]
        if failed and len(failed) == len(trials):
            raise AgeGenderError(f"all {len(failed)} trials failed; the last: {failed[-1].user_attrs.get('error')}")


_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
