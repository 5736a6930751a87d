"""A draft that follows the device from one MEC to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from runtime.link.senders import Draft


class MovingDraft(Draft):
    """The draft of a frame whose MEC may change before the payload is sent.

    What a payload refers to is known to one MEC only. If another one is asked when the payload is due, the frame is
    encoded anew in the stream to that one.
    """

    def __init__(self, find: Callable[[], Draft]) -> None:
        """``find``: a new draft of the same frame, in the stream to the MEC that is asked now."""
        first = find()
        super().__init__(first.stream, first.frame)
        self._find = find

    def encode(self, array: NDArray[Any]) -> bytes:
        self.stream = self._find().stream
        return super().encode(array)

    def payload(self) -> bytes:
        assert self._array is not None, "encode() first"
        return super().payload() if self._find().stream is self.stream else self.encode(self._array)
