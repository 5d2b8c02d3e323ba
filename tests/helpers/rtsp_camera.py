"""A camera in the network: an RTSP server (RFC 2326) that sends one JPEG image over and over (RFC 2435), over TCP."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from PIL import Image

_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track1\r\n"
_HEADERS = {
    "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n",
    "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(_SDP)}\r\n",
    "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n",
    "PLAY": "Session: 1\r\n",
}


def _payloads(picture: Image.Image) -> list[bytes]:
    """Returns an image, whose sides are multiples of 16, as the payloads of RTP packets."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=90, subsampling="4:2:0")
    jpeg, start, tables = content.getvalue(), 2, b""
    while True:
        marker, length = jpeg[start + 1], int.from_bytes(jpeg[start + 2 : start + 4])
        segment, start = jpeg[start + 4 : start + 2 + length], start + 2 + length
        if marker == 0xDB:  # quantization tables, each after its number
            tables += b"".join(segment[at + 1 : at + 65] for at in range(0, len(segment), 65))
        if marker == 0xDA:
            scan = jpeg[start:-2]
            break
    size = bytes((1, 255, picture.width // 8, picture.height // 8))  # type 4:2:0, tables included
    parts = [(at, scan[at : at + 1200]) for at in range(0, len(scan), 1200)]
    first = struct.pack(">BBH", 0, 0, len(tables)) + tables
    return [at.to_bytes(4) + size + (first if at == 0 else b"") + part for at, part in parts]


def _serve(connection: socket.socket, payloads: list[bytes], count: int) -> None:
    with connection, connection.makefile("rb") as requests:
        while method := requests.readline().split(b" ")[0].decode():
            headers = dict(line.decode().split(": ", 1) for line in iter(lambda: requests.readline().strip(), b""))
            body = _SDP if method == "DESCRIBE" else ""
            answer = f"RTSP/1.0 200 OK\r\nCSeq: {headers['CSeq']}\r\n{_HEADERS[method]}\r\n{body}"
            connection.sendall(answer.encode())
            if method == "PLAY":
                break
        number = 0
        for frame in range(count):
            for payload in payloads:
                last = 0x80 if payload is payloads[-1] else 0
                packet = struct.pack(">BBHII", 0x80, 26 | last, number, frame * 3600, 1) + payload
                connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                number += 1
            time.sleep(0.04)


@contextmanager
def rtsp_camera(picture: Image.Image, count: int = 30) -> Iterator[str]:
    """Serves `count` frames, 25 a second, to one client, and yields the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):  # closed by the client
                _serve(listener.accept()[0], _payloads(picture), count)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"rtsp://127.0.0.1:{listener.getsockname()[1]}/camera"
        thread.join(20)
