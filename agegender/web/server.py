"""The server: opens the port and serves until Ctrl-C."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any

import uvicorn

from agegender.errors import AgeGenderError, require
from agegender.prediction.predictor import Detect, Predictor
from agegender.web.app import create_app
from agegender.web.uploads import Limits

_MAX_CONNECTIONS = 500  # half of the usual limit of open files of a process
_SHUTDOWN_TIMEOUT = 3  # seconds to complete pending requests


class Server(uvicorn.Server):
    """A Uvicorn server of one application on an open socket."""

    def __init__(self, app: Any, listener: socket.socket, announce: bool = True):
        """Configure Uvicorn.

        Args:
            app: ASGI application.
            listener: Listening socket.
            announce: Whether to print the address once the server accepts requests.
        """
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_MAX_CONNECTIONS,
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
        listener.listen(128)  # with SO_REUSEADDR, only listen fails if another socket is bound to the port
    except OSError as error:
        if listener:
            listener.close()
        if isinstance(error, socket.gaierror):
            raise AgeGenderError(f"host={host} is not an address of this computer; try host=127.0.0.1") from None
        if error.errno == errno.EADDRINUSE:
            raise AgeGenderError(f"port={port} is in use; choose another, or port=0 for any free one") from None
        raise AgeGenderError(f"host={host} port={port} can't be opened ({error.strerror}); choose others") from None
    return listener


def allowed_hosts(host: str) -> frozenset[str] | None:
    """Return the `Host` names of a server that only this computer can reach; None, for any, for other servers."""
    literal = f"[{host}]" if ":" in host else host
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    return frozenset({"localhost", "127.0.0.1", "[::1]", literal.lower()}) if is_local else None


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
) -> None:
    """Serve the page and the API until Ctrl-C.

    Args:
        host: Address to listen on.
        port: Port; 0 for any free one.
        weights: See `Predictor`.
        detect: See `Predictor`; default of requests.
        device: See `Predictor`.
        min_confidence: See `Predictor`.
        max_upload_mb: Maximum size of a file, in millions of bytes.
        max_megapixels: Maximum size of an image, in millions of pixels.
        max_concurrency: Maximum number of images predicted at the same time.
        queue_size: Maximum number of further images that are uploading or waiting.
        queue_mb: Maximum size of all files that are uploading or waiting, in millions of bytes.
        upload_seconds: Time limit of an upload, in seconds.

    Raises:
        AgeGenderError: A setting is out of range, the port can't be opened, or the weights or device don't exist.
    """
    for name, value in (("max_concurrency", max_concurrency), ("queue_size", queue_size)):
        require(value >= 1, f"{name}={value} must be at least 1")
    for name, size in (("max_upload_mb", max_upload_mb), ("upload_seconds", upload_seconds)):
        require(0 < size < float("inf"), f"{name}={size:g} must be above 0")
    require(queue_mb >= max_upload_mb, f"queue_mb={queue_mb:g} must be at least max_upload_mb={max_upload_mb:g}")
    require(0 < max_megapixels <= 178, f"max_megapixels={max_megapixels:g} must be above 0, and at most 178")
    listener = open_port(host, port)
    try:
        predictor = Predictor(weights, device, detect=detect, min_confidence=min_confidence)
        limits = Limits(int(max_upload_mb * 1e6), int(max_megapixels * 1e6), upload_seconds, int(queue_mb * 1e6))
        app = create_app(predictor, limits, max_concurrency, queue_size, allowed_hosts(host))
        Server(app, listener).serve_until_signal()
    except KeyboardInterrupt:  # the normal end
        print()
    finally:
        listener.close()
