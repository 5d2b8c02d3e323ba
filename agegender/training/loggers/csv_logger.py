"""A CSV logger that flushes every row, and that a resumed run appends to."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from agegender.errors import SystemFaultError
from agegender.system.files import atomic_write, raise_write_errors


class ResumableCSVLogger(CSVLogger):
    """Lightning's CSVLogger, which keeps the rows of a resumed run and loses none when the process is killed."""

    def __init__(self, save_dir: str, name: str = "csv", version: str = "", flush_logs_every_n_steps: int = 1):
        """Set the path, `<save_dir>/<name>/<version>/metrics.csv`; by default each row is written at once."""
        super().__init__(save_dir, name, version, flush_logs_every_n_steps=flush_logs_every_n_steps)

    @property
    def experiment(self) -> Any:
        """Return the writer, which appends to existing rows."""
        if self._experiment is None and getattr(rank_zero_only, "rank", 0) == 0:
            with raise_write_errors("the table of the log in", Path(self.log_dir)):
                self._experiment = _Rows(self.log_dir)
        return super().experiment

    @rank_zero_only
    def save(self) -> None:
        """Write the pending rows.

        Raises:
            FaultError: The file can't be written.
        """
        with raise_write_errors("the table of the log in", Path(self.log_dir)):
            super().save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the log; after a failure, errors are suppressed so that they don't hide the first one."""
        try:
            super().finalize(status)
        except SystemFaultError:
            if status == "success":
                raise


class _Rows(ExperimentWriter):
    """Writer of `metrics.csv`. Steps that a resumed run logs again replace the earlier rows from that step on."""

    def __init__(self, log_dir: str):
        super().__init__(log_dir)
        self._before = self._read()
        self.metrics_keys = sorted({key for row in self._before for key in row})

    def _check_log_dir_exists(self) -> None:
        """Keep an existing file; Lightning's writer deletes it."""

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        if self._before and step is not None:
            kept = [row for row in self._before if int(row["step"]) < step]
            if len(kept) < len(self._before):
                self._write(kept, self.metrics_keys)
        self._before = []
        super().log_metrics(metrics_dict, step)

    def _rewrite_with_new_header(self, fieldnames: Sequence[str]) -> None:
        self._write(self._read(), fieldnames)

    def _read(self) -> list[dict[str, str]]:
        """Return the complete rows on the disk; the last one may be truncated after a kill."""
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if None not in row.values() and row.get("step", "").isdigit()]

    def _write(self, rows: Sequence[dict[str, str]], fieldnames: Sequence[str]) -> None:
        with atomic_write(Path(self.metrics_file_path), "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(rows)
