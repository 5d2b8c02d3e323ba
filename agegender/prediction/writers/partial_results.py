"""The progress file of a prediction run, from which a stopped or killed run is resumed."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from agegender.errors import AgeGenderError, require
from agegender.prediction.images.sources import file_stamp
from agegender.prediction.prediction import columns_of, to_row
from agegender.prediction.predictor import ImageResult
from agegender.system.files import acquire_lock
from agegender.tasks.info import TaskInfo

_HEAD = "agegender"  # key of the object on the first line, which identifies the format even if the file is truncated
_BEGIN = json.dumps({_HEAD: {}})[:-2].encode()


class PartialResults:
    """The file `<out>.partial`: a header with weights and settings, then a JSON line of stamp and rows for each image.

    A context manager. The file is removed on exit, unless an error occurred and the file holds predictions. A lock file
    `.<out>.partial.lock` is held meanwhile; one that a killed run left behind does no harm.

    Attributes:
        done: Paths of the images in the file, with their number of occurrences.
        changed: Path of the first image whose file differs from the one predicted, from which on the rows are dropped;
            None if there is none. A file that is gone keeps its rows.
    """

    def __init__(
        self,
        out: Path,
        origin: dict[str, Any],
        tasks: Sequence[TaskInfo],
        resume: bool,
        multiple: int = 1,
        tracked: bool = False,
    ):
        """Lock and open the file, and read the predictions in it.

        Args:
            out: The final output file.
            origin: Weights and settings, which must be the same in a resumed run.
            tasks: The predictor's tasks.
            resume: Whether to continue a stopped run; without it the file must hold no predictions.
            multiple: Keep a multiple of this number of images of the stopped run, which are whole batches.
            tracked: Whether the rows have a column `track`.

        Raises:
            AgeGenderError: Another run is writing the file; it holds predictions and `resume` is False; it has another
                origin, is damaged or is no progress file; `resume` is True and `out` is finished; or it can't be
                written.
        """
        self._path = out.with_name(f"{out.name}.partial")
        self._tasks, self._tracked, self._columns = tasks, tracked, set(columns_of(tasks, tracked))
        self._answered, self._multiple = 0, multiple
        self.changed: str | None = None
        self.done: Counter[str] = Counter()
        lock, refusal = out.with_name(f".{self._path.name}.lock"), f"another run is writing {out}"
        try:
            self._lock = acquire_lock(lock, f"{refusal}: wait for it to end, or use another out")
        except OSError as error:
            raise AgeGenderError(f"can't write {lock} ({error.strerror})") from None
        try:
            self._begin(out, origin, resume)
        except BaseException:
            self._unlock()
            raise

    def _begin(self, out: Path, origin: dict[str, Any], resume: bool) -> None:
        try:
            whole = self._take_up(origin, resume) if os.path.lexists(self._path) else 0
            if resume and not self._answered and self.changed is None and os.path.lexists(out):
                raise AgeGenderError(f"{out} is finished: leave out resume=true to start over, or use another out")
            self._file = self._path.open("a", encoding="utf-8")
            self._file.truncate(whole)
        except OSError as error:
            raise AgeGenderError(f"can't write {self._path} ({error.strerror})") from None
        if not whole:
            try:
                self._write({_HEAD: origin})
            except OSError as error:
                self._close(remove=True)
                raise AgeGenderError(f"can't write {self._path} ({error.strerror})") from None

    def _take_up(self, origin: dict[str, Any], resume: bool) -> int:
        """Read an existing file, and return the number of bytes to keep."""
        require(self._path.is_file(), f"{self._path} is not a file: remove it, or use another out")
        whole, read = 0, 0  # bytes
        batch: list[str] = []
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                torn = not line.endswith(b"\n")  # the run was killed while writing it
                if number == 1:
                    if torn and (line.startswith(_BEGIN) or _BEGIN.startswith(line)):
                        break
                    began = self._origin(line)
                elif torn:
                    break
                else:
                    if number == 2:  # without predictions, start over with any settings
                        self._compare(began, origin, resume)
                    path, stamp = self._picture(line, number)
                    if file_stamp(path) not in (None, stamp):
                        self.changed = path
                        break
                    batch.append(path)
                read += len(line)
                if len(batch) in (0, self._multiple):
                    whole = read
                    self.done.update(batch)
                    batch.clear()
        self._answered = self.done.total() + len(batch)
        return whole if self._answered else 0

    def _compare(self, began: dict[str, Any], origin: dict[str, Any], resume: bool) -> None:
        """Raise an error unless the predictions of the file may be continued."""
        if not resume:
            raise AgeGenderError(
                f"{self._path} holds the predictions of a stopped run: add resume=true to continue it, or delete the "
                "file to start over"
            )
        names = [name for name in {**began, **origin} if began.get(name) != origin.get(name)]
        if names:
            theirs, ours = (", ".join(f"{name}={held.get(name)}" for name in names) for held in (began, origin))
            raise AgeGenderError(
                f"{self._path} was started with {theirs}, this run has {ours}: use the same, or delete it to start over"
            )

    def _origin(self, line: bytes) -> dict[str, Any]:
        held = _parsed(line)
        origin = held.get(_HEAD) if isinstance(held, dict) else None
        if not isinstance(origin, dict):
            raise AgeGenderError(f"{self._path} is not a progress file: move it away, or use another out")
        return origin

    def _picture(self, line: bytes, number: int) -> tuple[str, str | None]:
        """Return the path and the stamp of a line's image."""
        held = _parsed(line)
        rows: Any = held.get("rows") if isinstance(held, dict) and set(held) == {"stamp", "rows"} else None
        valid = isinstance(rows, list) and rows and all(map(self._is_row, rows))
        if not valid or len({row["path"] for row in rows}) > 1:
            raise AgeGenderError(f"line {number} of {self._path} is damaged: delete the file to start over")
        return rows[0]["path"], held["stamp"]

    def _is_row(self, row: Any) -> bool:
        return isinstance(row, dict) and set(row) == self._columns and isinstance(row["path"], str)

    def _write(self, line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def add(self, answered: ImageResult) -> None:
        """Append the rows of an image.

        Raises:
            AgeGenderError: The file can't be written, for example because the disk is full; earlier rows are kept.
        """
        try:
            rows = [to_row(prediction, self._tasks, self._tracked) for prediction in answered.predictions]
            self._write({"stamp": answered.stamp, "rows": rows})
        except OSError as error:
            raise AgeGenderError(
                f"can't write {self._path} ({error.strerror}); its predictions are kept: continue with resume=true"
            ) from None
        self._answered += 1

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all rows of the file."""
        with self._path.open("rb") as file:
            next(file)
            for line in file:
                yield from json.loads(line)["rows"]

    def __enter__(self) -> PartialResults:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(remove=kind is None or not self._answered)
        self._unlock()

    def _close(self, remove: bool) -> None:
        with suppress(OSError):  # on a full disk, closing tries to flush again
            self._file.close()
        if remove:
            self._path.unlink(missing_ok=True)

    def _unlock(self) -> None:
        # Unlink before releasing: filelock makes a waiting process that locks the unlinked file open a new one.
        with suppress(OSError):  # Windows can't remove an open file; filelock removes it there
            Path(self._lock.lock_file).unlink()
        self._lock.release()


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
