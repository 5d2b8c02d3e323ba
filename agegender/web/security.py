"""Middleware against cross-site requests and DNS rebinding; sets the security headers."""

from __future__ import annotations

from urllib.parse import urlsplit

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

    A page of another site can send requests to this server from the user's browser: their `Origin` header differs from
    the host. Or its domain can resolve to this server (DNS rebinding): the `Host` header is then not an allowed name.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None):
        """Wrap an application.

        Args:
            app: The application.
            hosts: Allowed names in the `Host` header; None for any.
        """
        self._app, self._hosts = app, hosts

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

        reason = self._rejection_reason(scope["method"], Headers(scope=scope))
        app = self._app if reason is None else JSONResponse({"error": reason}, 403)
        await app(scope, receive, send_with_headers)

    def _rejection_reason(self, method: str, headers: Headers) -> str | None:
        host = headers.get("host", "").lower()
        if self._hosts is not None and _without_port(host) not in self._hosts:
            return "the Host header is not an address of this server"
        origin = headers.get("origin")
        if origin is not None and method not in ("GET", "HEAD") and urlsplit(origin.lower()).netloc != host:
            return "requests from pages of other sites are not allowed"
        return None


def _without_port(host: str) -> str:
    """Return a host without its port; IPv6 addresses stay in brackets."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host
