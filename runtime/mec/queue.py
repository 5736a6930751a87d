"""The queue of a MEC: which admitted request is served next, and which finds no room."""

from __future__ import annotations

from collections import deque

from runtime.protocol.mec_session import Admit


class RequestQueue:
    """Owns the admitted requests that wait. The one that arrived first is served first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Admit] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def refusal(self, _: Admit) -> str:
        """Why a request finds no room; empty if it does."""
        return f"{len(self)} requests wait already" if len(self) >= self._limit else ""

    def add(self, job: Admit) -> None:
        """Add a request that ``refusal`` has no word against."""
        self._waiting.append(job)

    def take(self) -> Admit:
        """Remove and return the request to serve next."""
        return self._waiting.popleft()
