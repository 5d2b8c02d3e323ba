"""Middleware for responses that are sent before the body of the request has arrived."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = 10.0  # time limit for the rest of a body
_PAUSE_SECONDS = 1.0  # time without data after which it is no longer waited for


class EarlyResponseMiddleware:
    """ASGI middleware that receives and discards the rest of a request's body before an error is sent.

    A refusal needs no body. But if the server closes a connection on which data still arrive, TCP resets it, and a
    client that sends its whole request before it reads (nginx, most HTTP libraries) loses the response. See RFC 9112,
    section 9.6.
    """

    def __init__(self, app: ASGIApp):
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        # A client that sends `Expect: 100-continue` sends no body before it is asked to.
        has_body = scope["type"] == "http" and "expect" not in Headers(scope=scope)

        async def tracked_receive() -> Message:
            nonlocal has_body
            message = await receive()
            has_body = has_body and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def send_after_body(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SECONDS):
                        while has_body:
                            async with asyncio.timeout(_PAUSE_SECONDS):  # wait_for may lose the outer timeout
                                await tracked_receive()
            await send(message)

        await self._app(scope, tracked_receive, send_after_body)
