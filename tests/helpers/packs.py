"""Packed faces for the tests, and a bucket on loopback to stream them from."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from agegender.data.streaming.pack import pack

BUCKET = "faces-bucket"


def pack_small(faces: Path, out: Path) -> Path:
    """Packs faces into several very small shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agegender.data.streaming.pack.MB", 20_000)
        return pack({"dir": str(faces)}, str(out), shard_mb=1)


@contextmanager
def bucket_with(folder: Path, prefix: str) -> Iterator[str]:
    """Copies a folder to an S3-compatible server on loopback; gives its `s3://` address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        try:
            client = boto3.client("s3")
            client.create_bucket(Bucket=BUCKET)
            for file in folder.rglob("*"):
                if file.is_file():
                    client.upload_file(str(file), BUCKET, f"{prefix}/{file.relative_to(folder)}")
            yield f"s3://{BUCKET}/{prefix}"
        finally:
            server.stop()
