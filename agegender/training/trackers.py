"""Weights & Biases and MLflow as loggers; what goes to every logger: settings, best figures, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from agegender.errors import AgeGenderError, missing_package
from agegender.files import write_whole, writing

Scalar = bool | int | float | str


class WandbLog(WandbLogger):
    """Lightning's WandbLogger, one run of Weights & Biases per training: a resumed training goes on in its own."""

    def __init__(self, save_dir: str, project: str | None = None, name: str | None = None, **options: Any):
        """Takes the settings; nothing is opened yet.

        Args:
            save_dir: The training's folder. `wandb/run_id` in it keeps the run's name for a resumed training.
            project: Of Weights & Biases.
            name: The run's name in the dashboard.
            options: Further arguments of Lightning's WandbLogger or of `wandb.init`, such as `entity` and `tags`.

        Raises:
            AgeGenderError: wandb is not installed.
        """
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise missing_package("logger=wandb", error, "wandb") from None
        self._id_file = Path(save_dir) / "wandb" / "run_id"
        self._is_open = False
        options.setdefault("id", _read(self._id_file))
        super().__init__(name=name, save_dir=save_dir, project=project, **options)

    @property
    def experiment(self) -> Any:
        """Returns wandb's run, which the first access opens.

        Raises:
            AgeGenderError: It can't be opened: nobody is logged in, or the server doesn't answer.
        """
        if self._is_open or getattr(rank_zero_only, "rank", 0) != 0:
            return super().experiment
        import wandb

        try:
            run = super().experiment
        except wandb.Error as error:
            raise AgeGenderError(
                f"logger=wandb can't begin ({_line(error)}): run `wandb login`, or set WANDB_MODE=offline in the "
                "environment and upload later with `wandb sync`"
            ) from error
        self._is_open = True
        _write(self._id_file, str(run.id))
        return run

    def close(self, failed: bool) -> None:
        """Ends wandb's run: of several trainings in a process, as a sweep's, each has one of its own."""
        if self._is_open:
            import wandb

            wandb.finish(exit_code=int(failed))


class MlflowLog(MLFlowLogger):
    """Lightning's MLFlowLogger; a resumed training goes on in its own MLflow run."""

    def __init__(
        self,
        save_dir: str,
        experiment_name: str = "agegender",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        **options: Any,
    ):
        """Takes the settings; nothing is opened yet.

        Args:
            save_dir: The training's folder. `mlflow/run_id` in it keeps the run's name for a resumed training.
            experiment_name: MLflow's experiment, which is made if there is none.
            run_name: The run's name in MLflow's page.
            tracking_uri: Server or database, as `http://localhost:5000` or `sqlite:///logs/mlflow.db`.
            options: Further arguments of Lightning's MLFlowLogger, such as `tags` and `artifact_location`, which for
                SQLite is a folder beside the database unless given.

        Raises:
            AgeGenderError: MLflow, or what it needs for a database, is not installed; or it refuses the address.
        """
        try:
            import mlflow.exceptions

            if (tracking_uri or "").startswith("sqlite:"):
                import alembic  # noqa: F401
                import sqlalchemy  # noqa: F401
        except ImportError as error:
            raise missing_package("logger=mlflow", error, "mlflow") from None
        self._id_file = Path(save_dir) / "mlflow" / "run_id"
        self._where, self._is_open = tracking_uri, False
        options.setdefault("run_id", _read(self._id_file))
        if (tracking_uri or "").startswith("sqlite:///"):
            folder = Path(str(tracking_uri).removeprefix("sqlite:///")).resolve().parent
            folder.mkdir(parents=True, exist_ok=True)
            options.setdefault("artifact_location", (folder / "mlflow_artifacts").as_uri())
        try:
            super().__init__(experiment_name, run_name, tracking_uri, save_dir=save_dir, **options)
        except mlflow.exceptions.MlflowException as error:
            raise AgeGenderError(f"logger.mlflow.tracking_uri={tracking_uri} can't be used: {_line(error)}") from error

    @property
    def experiment(self) -> Any:
        """Returns MLflow's client; the first access begins the run.

        Raises:
            AgeGenderError: It can't begin: the server doesn't answer, or doesn't know the run any more.
        """
        if self._is_open or getattr(rank_zero_only, "rank", 0) != 0:
            return super().experiment
        import mlflow.exceptions

        try:
            client = super().experiment
        except mlflow.exceptions.MlflowException as error:
            raise AgeGenderError(
                f"logger=mlflow can't begin ({_line(error)}): see that logger.mlflow.tracking_uri={self._where} answers"
            ) from error
        self._is_open = True
        _write(self._id_file, str(self.run_id))
        return client

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Writes settings. MLflow lets none be changed: one that differs in a resumed run is a tag, `resumed.<key>`."""
        known = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({key: value for key, value in params.items() if key not in known})
        for key, value in params.items():
            if key in known and known[key] != str(value)[:250]:
                self.experiment.set_tag(self.run_id, f"resumed.{key}", str(value))


def log_settings(loggers: Sequence[Logger], settings: Mapping[str, Scalar]) -> None:
    """Hands a run's settings to each logger; TensorBoard's tab wants them together with the best figures."""
    for logger in loggers:
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(dict(settings))


def log_best(loggers: Sequence[Logger], settings: Mapping[str, Scalar], best: Mapping[str, float], step: int) -> None:
    """Hands the best checkpoint's figures to each logger, named `best/<stage>/<figure>`.

    Under another name than the curves': the final value would be appended to them.
    """
    figures = {f"best/{name}": value for name, value in best.items()}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):  # its HPARAMS tab
            logger.log_hyperparams(dict(settings), figures)
        else:
            logger.log_metrics(figures, step)
        logger.save()


def takes_pictures(logger: Logger) -> bool:
    """Tells whether a logger takes pictures: TensorBoard's, MLflow's, and any with Lightning's `log_image`."""
    return isinstance(logger, TensorBoardLogger | MLFlowLogger) or hasattr(logger, "log_image")


def log_picture(logger: Logger, name: str, picture: Image.Image, step: int) -> None:
    """Hands a picture to a logger that takes some, see `takes_pictures`."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, picture, key=name, step=step)
    elif hasattr(logger, "log_image"):  # WandbLogger's, and those of others that follow it
        logger.log_image(key=name, images=[picture], step=step)


@contextmanager
def closing(loggers: Sequence[Logger]) -> Iterator[None]:
    """Ends what Lightning leaves open for more points, when all figures of a run are logged, or it fails."""
    failed = True
    try:
        yield
        failed = False
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLog):
                logger.close(failed)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() or None if path.is_file() else None


def _write(path: Path, text: str) -> None:
    if _read(path) != text:
        with writing("the name of the logger's run", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_whole(path, "w", encoding="utf-8") as file:
                file.write(f"{text}\n")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
