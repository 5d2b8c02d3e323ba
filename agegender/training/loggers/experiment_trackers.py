"""Weights & Biases and MLflow loggers, and logging of settings, best metrics and images to any logger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from agegender.errors import AgeGenderError, missing_extra
from agegender.system.files import atomic_write, raise_write_errors
from agegender.training.loggers.tensorboard_logger import BEST

Scalar = bool | int | float | str


class WandbLog(WandbLogger):
    """Lightning's WandbLogger with one W&B run per training, which a resumed training continues."""

    def __init__(self, save_dir: str, project: str | None = None, name: str | None = None, **options: Any):
        """Take the settings; nothing is opened yet.

        Args:
            save_dir: The training's folder; `wandb/run_id` in it stores the run's ID for a resumed training.
            project: Project of Weights & Biases.
            name: Name of the run in the dashboard.
            options: Further arguments of Lightning's WandbLogger or of `wandb.init`, such as `entity` and `tags`.

        Raises:
            AgeGenderError: wandb is not installed.
        """
        try:
            import wandb  # noqa: F401
        except ImportError as error:
            raise missing_extra("logger=wandb", error, "wandb") from None
        self._id_file = Path(save_dir) / "wandb" / "run_id"
        self._is_open = False
        options.setdefault("id", _read(self._id_file))
        super().__init__(name=name, save_dir=save_dir, project=project, **options)

    @property
    def experiment(self) -> Any:
        """Return the W&B run, which the first access opens.

        Raises:
            AgeGenderError: The run can't be opened: not logged in, or no connection to the server.
        """
        if self._is_open or getattr(rank_zero_only, "rank", 0) != 0:
            return super().experiment
        import wandb

        try:
            run = super().experiment
        except wandb.Error as error:
            raise AgeGenderError(
                f"logger=wandb can't be opened ({_line(error)}): run `wandb login`, or set WANDB_MODE=offline in the "
                "environment and upload later with `wandb sync`"
            ) from error
        self._is_open = True
        _write(self._id_file, str(run.id))
        return run

    def close(self, failed: bool) -> None:
        """Finish the W&B run, so that the next training of a sweep in this process gets its own."""
        if self._is_open:
            import wandb

            wandb.finish(exit_code=int(failed))


class MlflowLog(MLFlowLogger):
    """Lightning's MLFlowLogger with one MLflow run per training, which a resumed training continues."""

    def __init__(
        self,
        save_dir: str,
        experiment_name: str = "agegender",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        **options: Any,
    ):
        """Take the settings; nothing is opened yet.

        Args:
            save_dir: The training's folder; `mlflow/run_id` in it stores the run's ID for a resumed training.
            experiment_name: MLflow's experiment, created if it doesn't exist.
            run_name: Name of the run in MLflow.
            tracking_uri: Server or database, such as `http://localhost:5000` or `sqlite:///logs/mlflow.db`.
            options: Further arguments of Lightning's MLFlowLogger, such as `tags` and `artifact_location`, which for
                SQLite is a folder beside the database unless given.

        Raises:
            AgeGenderError: MLflow or its database packages are not installed, or MLflow rejects the URI.
        """
        try:
            import mlflow.exceptions

            if (tracking_uri or "").startswith("sqlite:"):
                import alembic  # noqa: F401
                import sqlalchemy  # noqa: F401
        except ImportError as error:
            raise missing_extra("logger=mlflow", error, "mlflow") from None
        self._id_file = Path(save_dir) / "mlflow" / "run_id"
        self._where, self._is_open = tracking_uri, False
        options.setdefault("run_id", _read(self._id_file))
        if (tracking_uri or "").startswith("sqlite:///"):
            database = Path(str(tracking_uri).removeprefix("sqlite:///")).resolve()
            tracking_uri, folder = f"sqlite:///{database}", database.parent  # MLflow keeps a connection per URI
            folder.mkdir(parents=True, exist_ok=True)
            options.setdefault("artifact_location", (folder / "mlflow_artifacts").as_uri())
        try:
            super().__init__(experiment_name, run_name, tracking_uri, save_dir=save_dir, **options)
        except mlflow.exceptions.MlflowException as error:
            raise AgeGenderError(f"logger.mlflow.tracking_uri={tracking_uri} can't be used: {_line(error)}") from error

    @property
    def experiment(self) -> Any:
        """Return MLflow's client; the first access opens the run.

        Raises:
            AgeGenderError: The run can't be opened: no connection to the server, or the run was deleted.
        """
        if self._is_open or getattr(rank_zero_only, "rank", 0) != 0:
            return super().experiment
        import mlflow.exceptions

        try:
            client = super().experiment
        except mlflow.exceptions.MlflowException as error:
            raise AgeGenderError(
                f"logger=mlflow can't be opened ({_line(error)}): check logger.mlflow.tracking_uri={self._where}"
            ) from error
        self._is_open = True
        _write(self._id_file, str(self.run_id))
        return client

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log settings. MLflow's are immutable: one that a resumed run changes becomes a tag, `resumed.<key>`."""
        known = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({key: value for key, value in params.items() if key not in known})
        for key, value in params.items():
            if key in known and known[key] != str(value)[:250]:
                self.experiment.set_tag(self.run_id, f"resumed.{key}", str(value))


def log_settings(loggers: Sequence[Logger], settings: Mapping[str, Scalar]) -> None:
    """Log a run's settings, except to TensorBoard, which takes them with the best metrics (`log_best`)."""
    for logger in loggers:
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(dict(settings))


def log_best(loggers: Sequence[Logger], settings: Mapping[str, Scalar], best: Mapping[str, float], step: int) -> None:
    """Log the best checkpoint's metrics as `best/<stage>/<metric>`, and to TensorBoard as `z_best/...`.

    The names differ from the curves', to which the values would be appended otherwise.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):  # its HPARAMS tab
            logger.log_hyperparams(dict(settings), {f"{BEST}/{name}": value for name, value in best.items()})
        else:
            logger.log_metrics({f"best/{name}": value for name, value in best.items()}, step)
        logger.save()


def takes_pictures(logger: Logger) -> bool:
    """Return whether a logger supports images: TensorBoard's, MLflow's, and any with Lightning's `log_image`."""
    return isinstance(logger, TensorBoardLogger | MLFlowLogger) or hasattr(logger, "log_image")


def log_picture(logger: Logger, name: str, picture: Image.Image, step: int) -> None:
    """Log an image to a logger for which `takes_pictures` is True."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, picture, key=name, step=step)
    elif hasattr(logger, "log_image"):  # WandbLogger and loggers with the same method
        logger.log_image(key=name, images=[picture], step=step)


@contextmanager
def closing(loggers: Sequence[Logger]) -> Iterator[None]:
    """Finish W&B runs, which Lightning leaves open, after a run or its failure."""
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
        with raise_write_errors("the ID of the logger's run", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path, "w", encoding="utf-8") as file:
                file.write(f"{text}\n")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
