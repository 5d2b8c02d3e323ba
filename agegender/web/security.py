"""Middleware against cross-site requests; sets the security headers."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class SecurityMiddleware:
    """ASGI middleware that rejects requests of other sites' pages, and sets the security headers.

    A page of another site can send requests to this server from the user's browser. The browser then states so in
    `Sec-Fetch-Site` (W3C, "Fetch Metadata Request Headers"), or at least in `Origin`.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str] = ()):
        """Wrap an application.

        Args:
            app: The application.
            origins: Further allowed origins, such as `https://my.site`; `*` for any.
        """
        self._app, self._origins = app, frozenset(origin.lower() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        app = self._app
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and self._is_of_another_site(Headers(scope=scope)):
            app = JSONResponse({"error": "requests from pages of other sites are not allowed"}, 403)
        await app(scope, receive, send_with_headers)

    def _is_of_another_site(self, headers: Headers) -> bool:
        origin, site = headers.get("origin", "").lower(), headers.get("sec-fetch-site")
        if not self._origins.isdisjoint((origin, "*")):
            return False
        if site is not None:  # browsers send it over HTTPS and from localhost; behind a proxy the Host may differ
            return site not in ("same-origin", "none")
        return bool(origin) and origin.partition("://")[2] != headers.get("host", "").lower()
