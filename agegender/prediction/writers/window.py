"""A window with each image and its predictions, as they are made."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from agegender.errors import require
from agegender.prediction.images.video import import_opencv
from agegender.prediction.predictor import ImageResult
from agegender.prediction.tracking.people import People
from agegender.prediction.writers.annotate import draw
from agegender.tasks.info import TaskInfo

_TITLE = "agegender: q ends"
_KEYS = (ord("q"), 27)  # 27 is Esc


class LiveWindow:
    """A window of OpenCV, which ends the run when it is closed."""

    def __init__(self) -> None:
        """Check that there can be a window.

        Raises:
            AgeGenderError: OpenCV has no windows, as opencv-python-headless, or there is no display.
        """
        self._cv2 = import_opencv("show=true")
        remedy = "pip uninstall -y opencv-python-headless && pip install opencv-python"
        has_windows = re.search(r"GUI: +NONE", self._cv2.getBuildInformation()) is None
        require(has_windows, f"show=true needs an OpenCV with windows: {remedy}")
        # without a display, Qt ends the process
        has_display = not sys.platform.startswith("linux") or {"DISPLAY", "WAYLAND_DISPLAY"} & {*os.environ}
        require(bool(has_display), "show=true needs a display: leave it out, or set DISPLAY")

    def show(
        self, answers: Iterable[ImageResult], tasks: Sequence[TaskInfo], people: People | None
    ) -> Iterator[ImageResult]:
        """Show images, and yield them, until the window is closed or q or Esc is pressed.

        Args:
            answers: Images with pictures; those without one are not shown.
            tasks: The predictor's tasks.
            people: The people of videos, whose estimates so far are shown; None if tracks were not asked for.
        """
        cv2, is_open = self._cv2, False
        for answered in answers:
            yield answered
            if answered.picture is None:
                continue
            predictions = [people.estimated(each) if people else each for each in answered.predictions]
            pixels = np.asarray(draw(answered.picture, predictions, tasks))[:, :, ::-1]
            if is_open and cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:  # imshow would open it again
                break
            cv2.imshow(_TITLE, np.ascontiguousarray(pixels))
            is_open = True
            if cv2.waitKey(1) & 0xFF in _KEYS:
                break
        cv2.destroyAllWindows()
