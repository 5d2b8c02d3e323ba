"""A local HTTP server that stands in for the Hugging Face Hub: the part of it that downloads of files use."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class ModelHub(ThreadingHTTPServer):
    """Serves repositories; `requests` collects the method and the path of each request.

    Attributes:
        repositories: Name, such as `me/tiny`, to its folder of each revision.
    """

    def __init__(self, repositories: Mapping[str, Mapping[str, Path]]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.requests: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        """URL for `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self.server_port}"


def commit_of(folder: Path) -> str:
    """Returns the commit that the server gives for a folder."""
    return hashlib.sha1(str(folder).encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: ModelHub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path))
        repository, _, rest = path.strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        revisions = self.server.repositories.get(repository)
        if revisions is None:
            return self._refuse("RepoNotFound")
        known = {**revisions, **{commit_of(folder): folder for folder in revisions.values()}}
        if revision not in known:
            return self._refuse("RevisionNotFound")
        found = known[revision] / file
        if not found.is_file():
            return self._refuse("EntryNotFound")
        content = found.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit_of(known[revision]))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Prints nothing."""


@contextmanager
def model_hub(repositories: Mapping[str, Mapping[str, Path]]) -> Iterator[ModelHub]:
    """Serves repositories on a port of this machine."""
    with ModelHub(repositories) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)  # see `file_server`
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
