"""Pictures wait here for their answers; a few are worked on at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from agegender.prediction.images.sources import NamedImage
from agegender.prediction.prediction import Prediction
from agegender.prediction.predictor import Detect, Predictor


@dataclass(frozen=True)
class Answer:
    """What was answered for a picture.

    Attributes:
        width: Of the upright picture in pixels; None if it could not be read.
        height: Likewise.
        predictions: See `predictor.ImageResult`.
    """

    width: int | None
    height: int | None
    predictions: list[Prediction]


@dataclass(frozen=True, eq=False)
class _Waiting:
    picture: NamedImage
    detect: Detect
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class RequestQueue:
    """Hands pictures to predictors from one thread: they may only be called from one at a time.

    A predictor spreads the few pictures that it gets over the cores itself, which a semaphore over several threads
    would not allow.
    """

    def __init__(self, predictors: Mapping[Detect, Predictor], max_concurrency: int):
        """Starts empty.

        Args:
            predictors: By the way in which they look for faces.
            max_concurrency: How many pictures are worked on at the same time.
        """
        self._predictors, self._max_concurrency = predictors, max_concurrency
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "predictor")

    async def submit(self, picture: NamedImage, detect: Detect) -> Answer:
        """Waits for a picture's answer; of one whose waiting is cancelled before its turn, no answer is made."""
        one = _Waiting(picture, detect)
        self._waiting.put_nowait(one)
        return await one.answer

    async def work(self) -> None:
        """Answers until it is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                batch = [await self._waiting.get()]
                while len(batch) < self._max_concurrency and not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                for detect in dict.fromkeys(one.detect for one in batch):
                    alike = [one for one in batch if one.detect == detect and not one.answer.done()]
                    if alike:
                        await loop.run_in_executor(self._thread, self._predict, alike, loop)
        finally:
            self._thread.shutdown()  # after the pictures in hand: their answers need this loop

    def _predict(self, batch: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        settled = 0
        try:
            answers = self._predictors[batch[0].detect].predict_images(
                [one.picture for one in batch], keep_pictures=True
            )
            for answered, one in zip(answers, batch, strict=True):
                width, height = answered.picture.size if answered.picture else (None, None)
                loop.call_soon_threadsafe(_settle, one.answer, Answer(width, height, answered.predictions))
                settled += 1
        except Exception as error:  # a fault of ours, or no memory: no other picture is to suffer from it
            if len(batch) == 1:
                loop.call_soon_threadsafe(_settle, batch[0].answer, error)
                return
            for one in batch[settled:]:
                self._predict([one], loop)


def _settle(future: asyncio.Future[Answer], outcome: Answer | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
