"""Answers on disk while the work goes on: what a killed run had done is there, and the next one goes on from it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from agegender.errors import AgeGenderError, require
from agegender.files import take_lock
from agegender.prediction.answers import COLUMNS, as_row
from agegender.prediction.predictor import Answered

_HEAD = "agegender"  # the first line is an object with this key: by it a file of ours is known, even a torn one
_BEGIN = json.dumps({_HEAD: {}})[:-2].encode()


class ProgressFile:
    """The file `<out>.partial`: what the answers came from, then a JSON line for each picture with all its rows.

    Used in a `with` statement. It is removed at the end, unless an error ends the work and there are answers in it.
    Until then a lock beside it is held, `.<out>.partial.lock`; what a killed run left of that is in nobody's way.

    Attributes:
        done: The pictures whose answers are there already, and how often.
    """

    def __init__(self, out: Path, origin: dict[str, Any], resume: bool, multiple: int = 1):
        """Opens it.

        Args:
            out: The file that is wanted in the end.
            origin: What must be alike for the answers to go together: weights and settings.
            resume: Go on from what a stopped run left; without it there must be no answers.
            multiple: Of the pictures that are there, keep a multiple of so many: whole batches.

        Raises:
            AgeGenderError: Another run is writing it, a stopped run left something that isn't to be resumed, or that
                came from something else or is damaged, `resume` finds `out` finished, there is a file of somebody
                else's, or the file can't be written.
        """
        self._path = out.with_name(f"{out.name}.partial")
        self._answered, self._multiple = 0, multiple
        self.done: Counter[str] = Counter()
        lock, refusal = out.with_name(f".{self._path.name}.lock"), f"another run is writing {out}"
        try:
            self._lock = take_lock(lock, f"{refusal}: wait for its end, or name another out")
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
            if resume and not self._answered and os.path.lexists(out):
                raise AgeGenderError(f"{out} is finished: leave resume out to answer anew, or name another out")
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
        """Reads what is there, and returns how many of its bytes are whole and go on being used."""
        require(self._path.is_file(), f"{self._path} is in the way: remove it, or name another out")
        began: dict[str, Any] = {}
        whole, read = 0, 0  # bytes
        batch: list[str] = []
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                torn = not line.endswith(b"\n")  # when the run was killed
                if number == 1:
                    if torn and (line.startswith(_BEGIN) or _BEGIN.startswith(line)):
                        break
                    began = self._origin(line)
                elif torn:
                    break
                else:
                    batch.append(self._picture(line, number))
                read += len(line)
                if len(batch) in (0, self._multiple):
                    whole = read
                    self.done.update(batch)
                    batch.clear()
        self._answered = self.done.total() + len(batch)
        if not self._answered:
            return 0  # nothing is lost if it begins again, under whatever settings
        if not resume:
            raise AgeGenderError(
                f"{self._path} holds the answers of a run that was stopped: add resume=true to go on from there, or "
                "delete it to begin again"
            )
        names = [name for name in {**began, **origin} if began.get(name) != origin.get(name)]
        if names:
            theirs, ours = (", ".join(f"{name}={held.get(name)}" for name in names) for held in (began, origin))
            raise AgeGenderError(
                f"{self._path} was begun with {theirs}, this is {ours}: use the same, or delete it to begin again"
            )
        return whole

    def _origin(self, line: bytes) -> dict[str, Any]:
        held = _parsed(line)
        origin = held.get(_HEAD) if isinstance(held, dict) else None
        if not isinstance(origin, dict):
            raise AgeGenderError(f"{self._path} is no file of a stopped run: move it away, or name another out")
        return origin

    def _picture(self, line: bytes, number: int) -> str:
        rows = _parsed(line)
        if not (
            isinstance(rows, list) and rows and all(_is_row(row) and row["path"] == rows[0]["path"] for row in rows)
        ):
            raise AgeGenderError(f"line {number} of {self._path} is damaged: delete the file to begin again")
        path: str = rows[0]["path"]
        return path

    def _write(self, line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def add(self, answered: Answered) -> None:
        """Adds a picture's answers.

        Raises:
            AgeGenderError: The disk is full, or the file can't be written for another reason; what is there stays.
        """
        try:
            self._write([as_row(prediction) for prediction in answered.predictions])
        except OSError as error:
            raise AgeGenderError(
                f"can't write {self._path} ({error.strerror}); what it holds is kept, go on with resume=true"
            ) from None
        self._answered += 1

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields all rows."""
        with self._path.open("rb") as file:
            next(file)
            for line in file:
                yield from json.loads(line)

    def __enter__(self) -> ProgressFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(remove=kind is None or not self._answered)
        self._unlock()

    def _close(self, remove: bool) -> None:
        with suppress(OSError):  # what a full disk didn't take would be written once more
            self._file.close()
        if remove:
            self._path.unlink(missing_ok=True)

    def _unlock(self) -> None:
        # The file goes while it is locked: whoever opened it before and locks it then, filelock sends back to its name.
        with suppress(OSError):  # Windows removes no open file, filelock does it there
            Path(self._lock.lock_file).unlink()
        self._lock.release()


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and set(row) == set(COLUMNS) and isinstance(row["path"], str)
