"""The page and the HTTP API as a Starlette application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, get_args

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agegender.errors import AgeGenderError, did_you_mean
from agegender.prediction.images.sources import NamedImage
from agegender.prediction.prediction import NO_FACE, to_row
from agegender.prediction.predictor import Detect, Predictor
from agegender.web.early_response import EarlyResponseMiddleware
from agegender.web.model_info import describe_model
from agegender.web.openapi import describe_api
from agegender.web.queue import RequestQueue
from agegender.web.samples import NAMES, draw_sample
from agegender.web.security import SecurityMiddleware
from agegender.web.uploads import Limits, check, declared_size, receive

log = logging.getLogger(__name__)

_DETECTION_SECONDS = 20.0  # of an image: several hundred faces
_PAGE = Path(__file__).parent / "page"
_MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def create_app(
    predictor: Predictor,
    limits: Limits,
    max_concurrency: int = 2,
    queue_size: int = 64,
    hosts: Sequence[str] = ("*",),
    origins: Sequence[str] = (),
) -> ASGIApp:
    """Build the application.

    Args:
        predictor: The predictor; its `detect` is the default of requests.
        limits: Limits of an upload.
        max_concurrency: Maximum number of images predicted at the same time.
        queue_size: Maximum number of further images that are uploading or waiting.
        hosts: Allowed names in the `Host` header; see Starlette's `TrustedHostMiddleware`.
        origins: Allowed origins of the pages of other sites; `*` for any.
    """
    endpoints = _Endpoints(predictor, limits, max_concurrency, queue_size)
    routes = [
        Route("/", _file(_PAGE / "index.html")),
        *(Route(f"/{path.name}", _file(path)) for path in sorted(_PAGE.iterdir()) if path.suffix in _MEDIA_TYPES),
        Route("/samples/{name}", _sample),
        Route("/api/info", endpoints.info),
        Route("/api/predict", endpoints.predict, methods=["POST"]),
        Route("/health", _health),
        Route("/openapi.json", endpoints.openapi),
    ]
    app: ASGIApp = Starlette(
        routes=routes,
        lifespan=endpoints.lifespan,
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
    )
    if origins:
        app = CORSMiddleware(app, origins, allow_methods=["GET", "POST"], allow_headers=["*"])
    # against DNS rebinding: a domain of another site that resolves to this server
    app = TrustedHostMiddleware(app, hosts, www_redirect=False)
    app = SecurityMiddleware(app, origins)  # also sets the headers of Starlette's error responses
    return EarlyResponseMiddleware(app)


class _Endpoints:
    """State shared by all requests."""

    def __init__(self, predictor: Predictor, limits: Limits, max_concurrency: int, queue_size: int):
        self._limits, self._free_slots, self._free_bytes = limits, max_concurrency + queue_size, limits.total
        self._detect, self._tasks = predictor.detect, predictor.tasks
        predictors: dict[Detect, Predictor] = {}
        for detect in get_args(Detect):
            with suppress(AgeGenderError):  # without the packages for face detection, only detect=never is available
                predictors[detect] = predictor.with_detection(detect, _DETECTION_SECONDS)
        self._predictors: Mapping[Detect, Predictor] = predictors
        self._queue = RequestQueue(predictors, max_concurrency)
        self._openapi = describe_api(self._tasks, list(predictors), predictor.detect)
        self._info: dict[str, Any] = {
            **describe_model(predictor.network, self._tasks, predictor.detect),
            "max_upload_mb": limits.size / 1e6,
            "max_megapixels": limits.pixels / 1e6,
        }

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Run the queue's worker while the server runs."""
        worker = asyncio.create_task(self._queue.work())
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker

    async def info(self, _: Request) -> Response:
        return JSONResponse(self._info)

    async def openapi(self, request: Request) -> Response:
        return JSONResponse({**self._openapi, "servers": [{"url": str(request.base_url).rstrip("/")}]})

    async def predict(self, request: Request) -> Response:
        detect = self._requested_detect(request)
        size = declared_size(request, self._limits)
        if not self._free_slots or size > self._free_bytes:
            raise HTTPException(503, "the server is busy: try again in a moment", {"Retry-After": "2"})
        self._free_slots, self._free_bytes = self._free_slots - 1, self._free_bytes - size
        try:
            upload = await receive(request, self._limits)
            answers = self._answers(upload.files, detect) if upload.is_list else self._answer(upload.files[0], detect)
            async with asyncio.timeout(self._limits.answer_seconds):
                return JSONResponse(await _while_connected(request, answers))
        except ClientDisconnect:
            return Response(status_code=400)  # required by Starlette; the client is disconnected
        except TimeoutError:
            raise HTTPException(504, f"no answer within {self._limits.answer_seconds:g} seconds") from None
        except asyncio.CancelledError:
            raise HTTPException(503, "the server is stopping", {"Connection": "close"}) from None
        finally:
            self._free_slots, self._free_bytes = self._free_slots + 1, self._free_bytes + size

    async def _answers(self, files: list[bytes], detect: Detect) -> list[dict[str, Any]]:
        """Return the answers of several files; one after another, so that other requests get their turn."""
        answers = []
        for content in files:
            try:
                answers.append(await self._answer(content, detect))
            except HTTPException as error:
                answers.append({"width": None, "height": None, "faces": [], "error": error.detail})
        return answers

    async def _answer(self, content: bytes, detect: Detect) -> dict[str, Any]:
        await run_in_threadpool(check, content, self._limits)
        answer = await self._queue.submit(NamedImage("upload", lambda: content), detect)
        error = answer.predictions[0].error
        if error is not None and error != NO_FACE:
            raise HTTPException(422, error)
        rows = [to_row(prediction, self._tasks) for prediction in answer.predictions if error is None]
        faces = [{name: value for name, value in row.items() if name not in ("path", "error")} for row in rows]
        return {"width": answer.width, "height": answer.height, "faces": faces, "error": error}

    def _requested_detect(self, request: Request) -> Detect:
        value = request.query_params.get("detect", self._detect)
        for detect in self._predictors:
            if detect == value:
                return detect
        raise HTTPException(400, f"detect={value[:40]} is not known; {did_you_mean(value[:40], self._predictors)}")


async def _while_connected(request: Request, work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of `work`; if the client disconnects before, its image is removed from the queue."""
    answer = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(request.receive())  # after the body, the only message is the disconnect
    try:
        await asyncio.wait({answer, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        answer.cancel()
        disconnect.cancel()


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _file(path: Path) -> Any:
    content, media_type = path.read_bytes(), _MEDIA_TYPES[path.suffix]

    async def endpoint(_: Request) -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return endpoint


def _sample(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in NAMES:
        raise HTTPException(404)
    return Response(draw_sample(name), media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _internal_error(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": "internal server error; see the server's log"}, 500)
