"""Why a request gets no answer."""

from __future__ import annotations


class RefusedError(Exception):
    """A request that is turned down; the message is a reason in a few words.

    Attributes:
        status: Of HTTP.
        headers: That go with it.
    """

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None):
        """Keeps the status and the reason."""
        super().__init__(reason)
        self.status, self.headers = status, headers or {}


def busy() -> RefusedError:
    """Returns what is said while there is no room; a moment later there may be."""
    return RefusedError(503, "too many pictures at once: try again in a moment", {"Retry-After": "2"})
