"""A request queue in front of the predictor, which processes a few images at the same time."""

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
    """The predictions for an image.

    Attributes:
        width: Width of the upright image in pixels; None if it can't be read.
        height: Height of the upright image in pixels; None if it can't be read.
        predictions: See `predictor.ImageResult`.
    """

    width: int | None
    height: int | None
    predictions: list[Prediction]


@dataclass(frozen=True, eq=False)
class _Request:
    image: NamedImage
    detect: Detect
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class RequestQueue:
    """A queue of images, which one thread passes to the predictors in small batches.

    Predictors are not thread-safe, so there is one thread and not a semaphore over several. A predictor distributes the
    images of a batch over the cores itself.
    """

    def __init__(self, predictors: Mapping[Detect, Predictor], max_concurrency: int):
        """Create an empty queue.

        Args:
            predictors: Predictors by their `detect`.
            max_concurrency: Maximum number of images in a batch.
        """
        self._predictors, self._max_concurrency = predictors, max_concurrency
        self._waiting: asyncio.Queue[_Request] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "predictor")

    async def submit(self, picture: NamedImage, detect: Detect) -> Answer:
        """Enqueue an image and wait for its predictions; if the task is cancelled before, the image is skipped."""
        request = _Request(picture, detect)
        self._waiting.put_nowait(request)
        return await request.answer

    async def work(self) -> None:
        """Process the queue until this task is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                batch = [await self._waiting.get()]
                while len(batch) < self._max_concurrency and not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                for detect in dict.fromkeys(request.detect for request in batch):
                    pending = [each for each in batch if each.detect == detect and not each.answer.done()]
                    if pending:
                        await loop.run_in_executor(self._thread, self._predict, pending, loop)
        finally:
            self._thread.shutdown()  # waits for the running batch, whose futures need this loop

    def _predict(self, batch: list[_Request], loop: asyncio.AbstractEventLoop) -> None:
        completed = 0
        try:
            results = self._predictors[batch[0].detect].predict_images(
                [each.image for each in batch], keep_pictures=True
            )
            for result, request in zip(results, batch, strict=True):
                width, height = result.picture.size if result.picture else (None, None)
                loop.call_soon_threadsafe(_resolve, request.answer, Answer(width, height, result.predictions))
                completed += 1
        except Exception as error:  # a bug, or out of memory: predict the other images one by one
            if len(batch) == 1:
                loop.call_soon_threadsafe(_resolve, batch[0].answer, error)
                return
            for request in batch[completed:]:
                self._predict([request], loop)


def _resolve(future: asyncio.Future[Answer], result: Answer | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
