"""The server: opens the port and serves until Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import re
import socket
from collections.abc import Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from agegender.errors import AgeGenderError, require
from agegender.prediction.predictor import BackendName, Detect, Predictor
from agegender.web.app import create_app
from agegender.web.uploads import Limits

_MAX_CONNECTIONS = 4000  # at most, and half of the process's limit of open files
_IDLE_SECONDS = 10.0  # after which a connection without a request is closed
_SHUTDOWN_TIMEOUT = 3  # seconds to complete pending requests
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


class _Connection(H11Protocol):
    """An HTTP connection that is closed if it stays without a request.

    Uvicorn's `timeout_keep_alive` begins with the first response: a client that sends nothing, or never completes the
    headers, would keep its connection for ever.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(_IDLE_SECONDS, self._close_if_idle, None)

    def _close_if_idle(self, last: Any) -> None:
        """Close the connection if no request is in progress and none has begun since `last`."""
        if self.cycle is last and (last is None or last.response_complete):
            self.transport.close()
        else:
            self._timer = self.loop.call_later(_IDLE_SECONDS, self._close_if_idle, self.cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._timer.cancel()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """A Uvicorn server of one application on an open socket."""

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        announce: bool = True,
        root_path: str = "",
        forwarded_allow_ips: str | list[str] = "127.0.0.1",
    ):
        """Configure Uvicorn.

        Args:
            app: ASGI application.
            listener: Listening socket.
            announce: Whether to print the address once the server accepts requests.
            root_path: See `serve`.
            forwarded_allow_ips: See `serve`.
        """
        super().__init__(
            uvicorn.Config(
                app,
                http=_Connection,
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_level="error",
                access_log=False,
                server_header=False,
                root_path=root_path,
                proxy_headers=True,
                forwarded_allow_ips=forwarded_allow_ips,
                limit_concurrency=_max_connections(),
                timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT,
            )
        )
        host, port = listener.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._listener, self._announce = listener, announce

    def serve_until_signal(self) -> None:
        """Serve until Ctrl-C, SIGTERM, or `should_exit`."""
        self.run(sockets=[self._listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the address."""
        await super().startup(sockets)
        if self.started and self._announce:
            print(f"ready: {self.address} (Ctrl-C to stop)", flush=True)


def open_port(host: str, port: int) -> socket.socket:
    """Return a listening socket on a port; 0 for any free one.

    Raises:
        AgeGenderError: The host is not an address of this computer, or the port is in use or can't be opened.
    """
    require(0 <= port <= 65_535, f"port={port} must be from 0 (any free one) to 65535")
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)  # with SO_REUSEADDR, only listen fails if another socket is bound to the port
    except OSError as error:
        if listener:
            listener.close()
        if isinstance(error, socket.gaierror):
            raise AgeGenderError(f"host={host} is not an address of this computer; try host=127.0.0.1") from None
        if error.errno == errno.EADDRINUSE:
            raise AgeGenderError(f"port={port} is in use; choose another, or port=0 for any free one") from None
        raise AgeGenderError(f"host={host} port={port} can't be opened ({error.strerror}); choose others") from None
    return listener


def _max_connections() -> int:
    """Return the maximum number of connections: half of the process's limit of open files, raised as far as allowed."""
    try:
        import resource
    except ImportError:  # Windows
        return 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * _MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(_MAX_CONNECTIONS, soft // 2)


def allowed_names(host: str, allowed_hosts: Sequence[str] | None) -> list[str]:
    """Return the `Host` names that requests may have, for Starlette's `TrustedHostMiddleware`.

    Args:
        host: Address to listen on.
        allowed_hosts: See `serve`.

    Raises:
        AgeGenderError: A name is invalid, or the server listens on all addresses and no names are given.
    """
    literal = f"[{host}]" if ":" in host else host
    if allowed_hosts is None:
        try:
            is_any = ipaddress.ip_address(host).is_unspecified
        except ValueError:
            is_any = False
        example = f"allowed_hosts=[{socket.gethostname() or 'my.host'}]"
        advice = "name what stands in browsers' address bars"
        require(not is_any, f"host={host} needs allowed_hosts=: {advice}, such as {example}, or allowed_hosts=['*']")
        return [*_LOCAL, literal.lower()]
    for name in allowed_hosts:
        fits = name == "*" or re.fullmatch(r"(\*\.)?[\w.-]+|\[[0-9a-fA-F:.]+\]", name) is not None
        require(fits, f"allowed_hosts: {name!r} must be a name such as my.host, without port, or *.my.host, or *")
    return [*_LOCAL, *allowed_hosts]


def _check_addresses(root_path: str, cors_origins: Sequence[str]) -> None:
    fits = re.fullmatch(r"(/[\w.~-]+)*", root_path) is not None
    require(fits, f"root_path={root_path} must begin with /, without one at its end, such as /faces")
    for origin in cors_origins:
        fits = origin == "*" or re.fullmatch(r"https?://[^/\s]+", origin) is not None
        require(fits, f"cors_origins: {origin!r} must be an origin such as https://my.site, without a path, or *")


def serve(
    host: str = "127.0.0.1",
    port: int = 7860,
    weights: str = "default",
    detect: Detect = "auto",
    device: str = "auto",
    min_confidence: float | None = None,
    max_upload_mb: float = 16,
    max_megapixels: float = 40,
    max_concurrency: int = 2,
    queue_size: int = 64,
    queue_mb: float = 256,
    upload_seconds: float = 30,
    request_seconds: float = 60,
    allowed_hosts: list[str] | None = None,
    root_path: str = "",
    forwarded_allow_ips: str | list[str] = "127.0.0.1",
    cors_origins: list[str] | None = None,
    backend: BackendName = "torch",
) -> None:
    """Serve the page and the API until Ctrl-C.

    Args:
        host: Address to listen on.
        port: Port; 0 for any free one.
        weights: See `Predictor`.
        detect: See `Predictor`; default of requests.
        device: See `Predictor`.
        min_confidence: See `Predictor`.
        max_upload_mb: Maximum size of the files of a request, in millions of bytes.
        max_megapixels: Maximum size of an image, in millions of pixels.
        max_concurrency: Maximum number of images predicted at the same time.
        queue_size: Maximum number of further images that are uploading or waiting.
        queue_mb: Maximum size of all files that are uploading or waiting, in millions of bytes.
        upload_seconds: Time limit of an upload, in seconds.
        request_seconds: Time limit from the end of an upload to the response, in seconds.
        allowed_hosts: Names, without port, that the `Host` header may have besides those of this computer itself;
            `*.my.host` for its subdomains, `*` for any. None for `host` only, which must then be a single address.
        root_path: Path under which a proxy publishes the server, if the proxy removes it from requests; see ASGI.
        forwarded_allow_ips: Addresses or networks of the proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` hold;
            `*` for any; see Uvicorn.
        cors_origins: Origins of the pages of other sites that may send requests; `*` for any; None for none.
        backend: See `Predictor`.

    Raises:
        AgeGenderError: A setting is out of range, the port can't be opened, or the weights or device don't exist.
    """
    for name, value in (("max_concurrency", max_concurrency), ("queue_size", queue_size)):
        require(value >= 1, f"{name}={value} must be at least 1")
    for name, size in (
        ("max_upload_mb", max_upload_mb),
        ("upload_seconds", upload_seconds),
        ("request_seconds", request_seconds),
    ):
        require(0 < size < float("inf"), f"{name}={size:g} must be above 0")
    require(queue_mb >= max_upload_mb, f"queue_mb={queue_mb:g} must be at least max_upload_mb={max_upload_mb:g}")
    require(0 < max_megapixels <= 178, f"max_megapixels={max_megapixels:g} must be above 0, and at most 178")
    names, origins = allowed_names(host, allowed_hosts), cors_origins or []
    _check_addresses(root_path, origins)
    listener = open_port(host, port)
    try:
        predictor = Predictor(weights, device, detect=detect, backend=backend, min_confidence=min_confidence)
        limits = Limits(
            int(max_upload_mb * 1e6), int(max_megapixels * 1e6), upload_seconds, int(queue_mb * 1e6), request_seconds
        )
        app = create_app(predictor, limits, max_concurrency, queue_size, names, origins)
        Server(app, listener, True, root_path, forwarded_allow_ips).serve_until_signal()
    except KeyboardInterrupt:  # the normal end
        print()
    finally:
        listener.close()
