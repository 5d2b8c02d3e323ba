"""The line in front of the predictor, and the form's reader, without a server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from served import form

from agegender.prediction.answers import Prediction
from agegender.prediction.predictor import Answered, Detect, Predictor
from agegender.prediction.sources import Picture
from agegender.prediction.web.form import file_of_form
from agegender.prediction.web.line import Line
from agegender.prediction.web.refused import RefusedError


class Stub:
    """Answers with the picture's name, when it may; `fault` is one it stumbles over."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may = threading.Event()

    def answer(self, pictures: Iterable[Picture], keep_pictures: bool) -> Iterator[Answered]:
        assert keep_pictures and self.may.wait(20)
        names = [picture.path for picture in pictures]
        self.batches.append(names)
        for name in names:
            if name == "fault":
                raise RuntimeError("stumbled")
            yield Answered(name, [Prediction(name, 1, age=30)], Image.new("RGB", (4, 3)))


def picture(name: str) -> Picture:
    return Picture(name, lambda: b"")


def in_line(
    test: Callable[[Line, Stub], Coroutine[Any, Any, None]], at_once: int = 2, waiting: int = 4
) -> list[list[str]]:
    """Runs a test with a line that works; returns which pictures were worked on together."""
    stub = Stub()
    ways = cast(dict[Detect, Predictor], {"auto": stub, "never": stub})

    async def run() -> None:
        line = Line(ways, at_once, waiting)
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


def test_a_few_are_worked_on_together_and_in_order() -> None:
    async def test(line: Line, stub: Stub) -> None:
        first = asyncio.create_task(line.answer(picture("0"), "auto"))
        await asyncio.sleep(0.05)  # it is in work; the others gather meanwhile
        others = [asyncio.create_task(line.answer(picture(name), "never" if name == "3" else "auto")) for name in "123"]
        await asyncio.sleep(0.05)
        stub.may.set()
        answers = await asyncio.gather(first, *others)
        assert [answer.predictions[0].path for answer in answers] == ["0", "1", "2", "3"]
        assert {(answer.width, answer.height) for answer in answers} == {(4, 3)}

    assert in_line(test) == [["0"], ["1", "2"], ["3"]]


def test_who_comes_when_the_line_is_full_is_told_when_to_come_again() -> None:
    async def test(line: Line, stub: Stub) -> None:
        first = asyncio.create_task(line.answer(picture("first"), "auto"))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(line.answer(picture(str(i)), "auto")) for i in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(RefusedError) as refused:
            await line.answer(picture("too many"), "auto")
        assert refused.value.status == 503 and refused.value.headers["Retry-After"]
        waiting[1].cancel()  # gives up its place
        await asyncio.sleep(0)
        last = asyncio.create_task(line.answer(picture("last"), "auto"))
        await asyncio.sleep(0)
        stub.may.set()
        assert (await last).predictions[0].path == "last"
        await asyncio.gather(first, *waiting, return_exceptions=True)

    assert in_line(test) == [["first"], ["0", "2"], ["3", "last"]]


def test_a_picture_that_the_predictor_stumbles_over_harms_no_other() -> None:
    async def test(line: Line, stub: Stub) -> None:
        stub.may.set()
        names = ["fault", "a", "b", "fault", "c"]
        answers = await asyncio.gather(*(line.answer(picture(n), "auto") for n in names[:4]), return_exceptions=True)
        answers.append(await line.answer(picture(names[4]), "auto"))
        for name, answer in zip(names, answers, strict=True):
            if name == "fault":
                assert isinstance(answer, RuntimeError)
            else:
                assert not isinstance(answer, BaseException) and answer.predictions[0].path == name

    in_line(test, at_once=3)


@given(content=st.binary(max_size=300), noise=st.binary(max_size=60))
def test_a_forms_file_comes_out_as_it_went_in(content: bytes, noise: bytes) -> None:
    if b"\r\n--edge" in b"\r\n" + content + noise:
        return
    other = b'--edge\r\nContent-Disposition: form-data; name="note"\r\n\r\n' + noise + b"\r\n"
    body, _ = form(content, before=other)
    assert file_of_form(body, b"edge") == content


@given(body=st.binary(max_size=200) | st.text('-edg\r\n:;="file ', max_size=80).map(str.encode))
def test_no_bytes_break_the_forms_reader(body: bytes) -> None:
    for start in (b"", b"--edge\r\n", b'--edge\r\nContent-Disposition: form-data; name="file"\r\n'):
        with suppress(RefusedError):
            file_of_form(start + body, b"edge")


@pytest.mark.parametrize("attack", ["headers", "long header", "before", "after", "nearly ended", "empty parts"])
def test_no_form_within_the_size_limit_keeps_the_reader_busy(attack: str) -> None:
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
    started = time.process_time()
    with suppress(RefusedError):
        file_of_form(body, b"edge")
    assert time.process_time() - started < 5
