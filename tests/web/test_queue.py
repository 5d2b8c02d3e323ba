"""The request queue and the form parser, without a server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from typing import Any, cast

import pytest
from helpers.made_predictions import made
from helpers.served import form
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Scope

from agegender.prediction.images.sources import NamedImage
from agegender.prediction.predictor import Detect, ImageResult, Predictor
from agegender.web.queue import RequestQueue
from agegender.web.uploads import Limits, receive


class Stub:
    """A predictor that returns the names of its images once `may` is set, and raises for `fault`."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may = threading.Event()

    def predict_images(self, pictures: Iterable[NamedImage], keep_pictures: bool) -> Iterator[ImageResult]:
        assert keep_pictures and self.may.wait(20)
        names = [picture.path for picture in pictures]
        self.batches.append(names)
        for name in names:
            if name == "fault":
                raise RuntimeError("stumbled")
            yield ImageResult(name, [made(name, age=30)], Image.new("RGB", (4, 3)))


def picture(name: str) -> NamedImage:
    return NamedImage(name, lambda: b"")


def run_with_queue(
    test: Callable[[RequestQueue, Stub], Coroutine[Any, Any, None]], max_concurrency: int = 2
) -> list[list[str]]:
    """Runs a test with a running queue and returns the names of each batch."""
    stub = Stub()
    ways = cast(dict[Detect, Predictor], {"auto": stub, "never": stub})

    async def run() -> None:
        line = RequestQueue(ways, max_concurrency)
        work = asyncio.create_task(line.work())
        try:
            async with asyncio.timeout(20):
                await test(line, stub)
        finally:
            stub.may.set()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    asyncio.run(run())
    return stub.batches


def test_queue_batches_waiting_requests_in_order() -> None:
    async def test(line: RequestQueue, stub: Stub) -> None:
        first = asyncio.create_task(line.submit(picture("0"), "auto"))
        await asyncio.sleep(0.05)  # it is in work; the others gather meanwhile
        others = [asyncio.create_task(line.submit(picture(name), "never" if name == "3" else "auto")) for name in "123"]
        await asyncio.sleep(0.05)
        stub.may.set()
        answers = await asyncio.gather(first, *others)
        assert [answer.predictions[0].path for answer in answers] == ["0", "1", "2", "3"]
        assert {(answer.width, answer.height) for answer in answers} == {(4, 3)}

    assert run_with_queue(test) == [["0"], ["1", "2"], ["3"]]


def test_queue_skips_a_canceled_request() -> None:
    async def test(line: RequestQueue, stub: Stub) -> None:
        first, gone, last = (asyncio.create_task(line.submit(picture(name), "auto")) for name in "012")
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        stub.may.set()
        assert [answer.predictions[0].path for answer in await asyncio.gather(first, last)] == ["0", "2"]

    assert run_with_queue(test, max_concurrency=1) == [["0"], ["2"]]


def test_queue_confines_an_error_to_its_image() -> None:
    async def test(line: RequestQueue, stub: Stub) -> None:
        stub.may.set()
        names = ["fault", "a", "b", "fault", "c"]
        answers = await asyncio.gather(*(line.submit(picture(n), "auto") for n in names[:4]), return_exceptions=True)
        answers.append(await line.submit(picture(names[4]), "auto"))
        for name, answer in zip(names, answers, strict=True):
            if name == "fault":
                assert isinstance(answer, RuntimeError)
            else:
                assert not isinstance(answer, BaseException) and answer.predictions[0].path == name

    run_with_queue(test, max_concurrency=3)


@pytest.mark.parametrize("attack", ["headers", "long header", "before", "after", "nearly ended", "empty parts"])
def test_receive_reads_hostile_forms_in_bounded_time(attack: str) -> None:
    size = 2_000_000
    good = form(b"picture")[0]
    body = {
        "headers": b"--edge\r\n" + b"a: b\r\n" * (size // 6) + b"\r\n" + good,
        "long header": b"--edge\r\n" + b"a" * size + b": b\r\n\r\n" + good,
        "before": b"\r\n" * (size // 2) + good,
        "after": good + b"\r\n" * (size // 2),
        "nearly ended": form(b"\r\n--edg" * (size // 7))[0],
        "empty parts": b"--edge\r\n\r\n\r\n" * (size // 12) + good,
    }[attack]
    sent = [body[start : start + 65_536] for start in range(0, len(body), 65_536)]

    async def chunks() -> Message:
        return {"type": "http.request", "body": sent.pop(0), "more_body": bool(sent)}

    scope: Scope = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=edge")]}
    started = time.process_time()
    with suppress(HTTPException):
        asyncio.run(receive(Request(scope, chunks), Limits(2 * size, 1, 60, 2 * size)))
    assert time.process_time() - started < 5
