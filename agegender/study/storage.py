"""Where a study lies, how it is opened, and what it must agree with before it goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import check_distribution_compatibility
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import Trial, TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from agegender.errors import AgeGenderError, require
from agegender.files import take_lock
from agegender.study.space import Space
from agegender.training.results import flatten

# What may differ between the trials of a study: where it runs, and what is shown. All else would change the scores.
_FREE = (
    *("name", "fit", "test", "report", "resume", "compile", "logger", "trainer.accelerator", "trainer.devices"),
    *("trainer.profiler", "trainer.log_every_n_steps", "trainer.default_root_dir", "data.dir", "data.cache"),
    *("data.cache_dir", "data.on_device", "data.num_workers", "data.strict", "callbacks.pruning"),
    *("callbacks.progress", "callbacks.pictures", "callbacks.learning_rate"),
)

INTERRUPTED = "interrupted"  # the error of a trial that somebody, or something, broke off
DIED = "died_before"  # the attribute of a trial that repeats one whose process was killed


@contextmanager
def open_storage(address: str | None, folder: Path) -> Iterator[RDBStorage]:
    """Open the database of a study, and closes it at the end.

    Args:
        address: An SQLAlchemy address; None for SQLite, `study.db` in the folder.
        folder: Of the study. It must exist.

    Raises:
        AgeGenderError: There is no study to be read at that place.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # in a trial's own process too
    logging.getLogger("alembic").setLevel(logging.WARNING)
    where = address or str(folder / "study.db")
    url = address or URL.create("sqlite", database=where).render_as_string()
    # Trials that run side by side write in turns: one waits for the other so many seconds.
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    try:
        storage = RDBStorage(url, engine_kwargs=options)
    except (SQLAlchemyError, RuntimeError, ImportError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise AgeGenderError(f"the study {where} can't be opened: {reason}") from None
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one search work on a study at a time: a trial that runs though nobody has the lock was interrupted.

    Raises:
        AgeGenderError: Another process is at it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refusal = f"another process works on the study in {folder}: wait for it, or start another study with name=..."
    lock = take_lock(folder / ".study.lock", refusal)
    try:
        yield
    finally:
        lock.release()


def settings_of(config: DictConfig) -> dict[str, Any]:
    """Return what a trial's score depends on, by dotted key; interpolations (`${optim.lr}`) as they are written."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    plain.pop("hydra", None)
    return {key: value for key, value in flatten(plain).items() if not _below(key, _FREE)}


def check_continues(study: Study, settings: Mapping[str, Any], space: Space, where: str) -> None:
    """Refuse to add trials to a study whose scores would mean something else; notes the settings of a new one.

    Raises:
        AgeGenderError: Names each difference.
    """
    known = study.user_attrs.get("settings")
    if known is None:
        study.set_user_attr("settings", dict(settings))
    varied = [*space, *(name for trial in study.get_trials(deepcopy=False) for name in trial.params)]
    varied = [key.lstrip("+") for key in varied]
    names = sorted(key for key in {*(known or settings), *settings} if not _below(key, varied))
    changed = [
        f"{key} was {(known or {}).get(key)} and is {settings.get(key)}"
        for key in names
        if known is not None and known.get(key) != settings.get(key)
    ]
    otherwise = "start another study with name=..."
    require(not changed, f"{where} was made with other settings: {'; '.join(changed)}. Put them back, or {otherwise}")
    for trial in study.get_trials(deepcopy=False):
        for key, before in trial.distributions.items():
            try:
                check_distribution_compatibility(before, space.get(key, before))
            except ValueError:
                raise AgeGenderError(
                    f"{where} chose {key} from {_said(before)}, and now it would be {_said(space[key])}, which Optuna "
                    f"can't join: put it back, give an interval within the old kind, or {otherwise}"
                ) from None


def live_trial(study: Study, number: int) -> Trial:
    """Return a trial that runs, as the process that started it, or another one, may report to it."""
    return Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def put_back(study: Study, number: int, space: Space, died: bool) -> None:
    """Mark a trial that was interrupted as failed, and has its settings tried again by the next one.

    Args:
        study: The study.
        number: The trial's.
        space: What is varied now.
        died: Nobody interrupted it: the process was killed. When that happens to its repetition too, the trial may be
            what kills (by its memory, say), and is not repeated again.
    """
    trial = study.get_trials(deepcopy=False)[number]
    again = not (died and trial.user_attrs.get(DIED))
    live_trial(study, number).set_user_attr("error", INTERRUPTED if again else "its process died, twice")
    study.tell(number, state=TrialState.FAIL)
    params = {key: value for key, value in trial.params.items() if key in space}
    if params and again:
        study.enqueue_trial(params, user_attrs={"repeats": number, DIED: died})


def _below(key: str, parents: Any) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def _said(distribution: Any) -> str:
    choices = getattr(distribution, "choices", None)
    return ",".join(choices) if choices else f"{distribution.low} to {distribution.high}"
