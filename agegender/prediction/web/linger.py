"""Lets whoever sends a refused upload read why."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = 5.0


class Linger:
    """Middleware: when an answer is out before its request is in, the rest is thrown away for a while.

    To close the connection at once would reset it: most clients then report a broken connection and not the answer.
    """

    def __init__(self, app: ASGIApp):
        """Surrounds an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if not {"content-length", "transfer-encoding"} & set(headers):
            await self._app(scope, receive, send)
            return
        whole = closing = False

        async def receive_and_note() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)  # of a request's part; or the client is gone
            return message

        async def send_and_linger(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start":
                closing = Headers(raw=message["headers"]).get("connection") == "close"  # it was too slow already
            elif not message.get("more_body", False) and not whole and not closing:
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SECONDS):
                        while not whole:
                            await receive_and_note()
                message = {"type": "http.response.body"}
            await send(message)

        await self._app(scope, receive_and_note, send_and_linger)
