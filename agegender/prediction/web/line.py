"""Where pictures wait for their answers: a few are worked on at the same time, some wait, further ones are refused."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from agegender.prediction.answers import Prediction
from agegender.prediction.predictor import Detect, Predictor
from agegender.prediction.sources import Picture
from agegender.prediction.web.refused import busy


@dataclass(frozen=True)
class Answer:
    """What was answered for a picture.

    Attributes:
        width: Of the upright picture in pixels; None if it could not be read.
        height: Likewise.
        predictions: See `predictor.Answered`.
    """

    width: int | None
    height: int | None
    predictions: list[Prediction]


@dataclass(frozen=True, eq=False)
class _Waiting:
    picture: Picture
    detect: Detect
    answer: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Line:
    """Hands pictures to predictors from one thread: they may only be called from one at a time.

    A predictor spreads the few pictures that it gets over the cores itself.
    """

    def __init__(self, predictors: Mapping[Detect, Predictor], at_once: int, waiting: int):
        """Starts empty.

        Args:
            predictors: By the way in which they look for faces.
            at_once: How many pictures are worked on at the same time.
            waiting: How many may wait beside them.
        """
        self._predictors, self._at_once, self._room = predictors, at_once, waiting
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "predictor")

    async def answer(self, picture: Picture, detect: Detect) -> Answer:
        """Waits for a picture's answer; whoever stops waiting gives up the place.

        Raises:
            RefusedError: As many wait as may.
        """
        self._forget_the_gone()
        if len(self._waiting) >= self._room:
            raise busy()
        one = _Waiting(picture, detect)
        self._waiting.append(one)
        self._arrived.set()
        return await one.answer

    async def work(self) -> None:
        """Answers until it is cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._arrived.wait()
                while batch := self._next():
                    await loop.run_in_executor(self._thread, self._predict, batch, loop)
                self._arrived.clear()
        finally:
            self._thread.shutdown()  # after the pictures in hand: their answers need this loop

    def _forget_the_gone(self) -> None:
        if any(one.answer.done() for one in self._waiting):
            self._waiting = deque(one for one in self._waiting if not one.answer.done())

    def _next(self) -> list[_Waiting]:
        """Takes the first ones that look for faces in the same way."""
        self._forget_the_gone()
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._at_once:
            if batch and self._waiting[0].detect != batch[0].detect:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _predict(self, batch: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        settled = 0
        try:
            answers = self._predictors[batch[0].detect].answer([one.picture for one in batch], keep_pictures=True)
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
