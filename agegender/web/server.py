"""Opens the port and serves until Ctrl-C."""

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

_CONNECTIONS = 500  # that are answered at the same time: half of what a process may usually open
_LAST_ANSWERS = 3  # seconds that the end waits for them


class Server(uvicorn.Server):
    """The server of one application on one socket."""

    def __init__(self, app: Any, listener: socket.socket, announce: bool = True):
        """Takes a socket that is bound already, so that its address is known.

        Args:
            app: The application.
            listener: Bound.
            announce: Print the address when it can be opened.
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
                limit_concurrency=_CONNECTIONS,
                timeout_graceful_shutdown=_LAST_ANSWERS,
            )
        )
        host, port = listener.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._listener, self._announce = listener, announce

    def serve_until_signal(self) -> None:
        """Serves until Ctrl-C, SIGTERM, or `should_exit`."""
        self.run(sockets=[self._listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and says where."""
        await super().startup(sockets)
        if self.started and self._announce:
            print(f"ready: {self.address} (Ctrl-C ends)", flush=True)


def open_port(host: str, port: int) -> socket.socket:
    """Binds a port; 0 for any free one.

    Raises:
        AgeGenderError: It is in use, or may not be bound.
    """
    require(0 <= port <= 65_535, f"port={port} must be from 0 (any free one) to 65535")
    listener = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)  # two of them may bind one port until one listens
    except OSError as error:
        if listener:
            listener.close()
        if isinstance(error, socket.gaierror):
            raise AgeGenderError(f"host={host} is no address of this computer; try host=127.0.0.1") from None
        if error.errno == errno.EADDRINUSE:
            raise AgeGenderError(f"port={port} is in use; choose another, or port=0 for any free one") from None
        raise AgeGenderError(f"host={host} port={port} can't be opened ({error.strerror}); choose others") from None
    return listener


def allowed_hosts(host: str) -> frozenset[str] | None:
    """Returns the names under which a browser on this computer reaches a server; None, for any, if others reach it."""
    address = f"[{host}]" if ":" in host else host
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    return frozenset({"localhost", "127.0.0.1", "[::1]", address.lower()}) if local else None


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
    upload_seconds: float = 30,
) -> None:
    """Serves the page and the API; returns after Ctrl-C.

    Args:
        host: Address to listen at.
        port: 0 for any free one.
        weights: See `Predictor`.
        detect: See `Predictor`; a request may ask for another way.
        device: See `Predictor`.
        min_confidence: See `Predictor`.
        max_upload_mb: Largest file, in millions of bytes.
        max_megapixels: Largest picture, in millions of pixels.
        max_concurrency: How many pictures are worked on at the same time.
        queue_size: How many may arrive or wait beside them.
        upload_seconds: Within which an upload must have arrived.

    Raises:
        AgeGenderError: A setting doesn't fit, the port is in use, or there are no such weights or device.
    """
    for name, value in (("max_concurrency", max_concurrency), ("queue_size", queue_size)):
        require(value >= 1, f"{name}={value} must be at least 1")
    for name, size in (("max_upload_mb", max_upload_mb), ("upload_seconds", upload_seconds)):
        require(0 < size < float("inf"), f"{name}={size:g} must be above 0")
    require(0 < max_megapixels <= 178, f"max_megapixels={max_megapixels:g} must be above 0, and at most 178")
    listener = open_port(host, port)
    try:
        predictor = Predictor(weights, device, detect=detect, min_confidence=min_confidence)
        limits = Limits(int(max_upload_mb * 1e6), int(max_megapixels * 1e6), upload_seconds)
        app = create_app(predictor, limits, max_concurrency, queue_size, allowed_hosts(host))
        Server(app, listener).serve_until_signal()
    except KeyboardInterrupt:  # which is how it is meant to end
        print()
    finally:
        listener.close()
