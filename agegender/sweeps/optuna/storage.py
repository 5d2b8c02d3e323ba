"""Storage of a study: its database, its lock, and the check that new trials are comparable with earlier ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import check_distribution_compatibility
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import Trial, TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from agegender.errors import AgeGenderError, require
from agegender.sweeps.optuna.space import Space
from agegender.sweeps.settings import is_below
from agegender.system.files import acquire_lock

INTERRUPTED = "interrupted"  # error of a trial that was interrupted, by Ctrl-C or by the end of its process
DIED = "died_before"  # user attribute of a trial that repeats one whose process was killed


@contextmanager
def open_storage(address: str | None, folder: Path) -> Iterator[RDBStorage]:
    """Open the database of a study, and close it at the end.

    Args:
        address: SQLAlchemy URL; None for SQLite, `study.db` in the folder.
        folder: Folder of the study. It must exist.

    Raises:
        AgeGenderError: The database can't be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # needed in a trial's own process too
    logging.getLogger("alembic").setLevel(logging.WARNING)
    where = address or str(folder / "study.db")
    url = address or URL.create("sqlite", database=where).render_as_string()
    # Trials that run in parallel lock the database in turn: wait for up to so many seconds.
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
def study_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a study, so that one search runs at a time.

    Whoever gets the lock can take trials in the state RUNNING for interrupted.

    Raises:
        AgeGenderError: Another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refusal = f"another search is running in {folder}: wait for it, or start another study with name=..."
    lock = acquire_lock(folder / ".study.lock", refusal)
    try:
        yield
    finally:
        lock.release()


def check_compatible(study: Study, settings: Mapping[str, Any], space: Space, where: str) -> None:
    """Check that new trials have the settings of the study, apart from varied ones; record them in a new study.

    Args:
        study: The study.
        settings: From `sweeps.settings.comparable_settings`.
        space: Current search space.
        where: Address of the study, for messages.

    Raises:
        AgeGenderError: A setting or the type of a search range has changed; the message names each difference.
    """
    known = study.user_attrs.get("settings")
    if known is None:
        study.set_user_attr("settings", dict(settings))
    varied = [*space, *(name for trial in study.get_trials(deepcopy=False) for name in trial.params)]
    varied = [key.lstrip("+") for key in varied]
    names = sorted(key for key in {*(known or settings), *settings} if not is_below(key, varied))
    changed = [
        f"{key} was {(known or {}).get(key)} and is {settings.get(key)}"
        for key in names
        if known is not None and known.get(key) != settings.get(key)
    ]
    otherwise = "start another study with name=..."
    require(not changed, f"{where} was made with other settings: {'; '.join(changed)}. Restore them, or {otherwise}")
    for trial in study.get_trials(deepcopy=False):
        for key, before in trial.distributions.items():
            try:
                check_distribution_compatibility(before, space.get(key, before))
            except ValueError:
                raise AgeGenderError(
                    f"{where} has {key} in {_format_range(before)}, which Optuna can't combine with "
                    f"{_format_range(space[key])}: restore it, give a range of the same type, or {otherwise}"
                ) from None


def running_trial(study: Study, number: int) -> Trial:
    """Return a running trial as an object that accepts reports, from any process.

    Args:
        study: The study.
        number: Number of the trial.
    """
    return Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def requeue_trial(study: Study, number: int, space: Space, died: bool) -> None:
    """Mark an interrupted trial as failed, and enqueue its settings for another trial.

    Args:
        study: The study.
        number: Number of the trial.
        space: Current search space; parameters outside it are not repeated.
        died: The process was killed, not interrupted by the user. A trial whose repetition is killed as well is not
            repeated again: it may be the cause (by its memory, say).
    """
    trial = study.get_trials(deepcopy=False)[number]
    again = not (died and trial.user_attrs.get(DIED))
    running_trial(study, number).set_user_attr("error", INTERRUPTED if again else "its process died, twice")
    study.tell(number, state=TrialState.FAIL)
    params = {key: value for key, value in trial.params.items() if key in space}
    if params and again:
        study.enqueue_trial(params, user_attrs={"repeats": number, DIED: died})


def _format_range(distribution: Any) -> str:
    choices = getattr(distribution, "choices", None)
    return ",".join(choices) if choices else f"{distribution.low} to {distribution.high}"
