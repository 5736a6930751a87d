"""Cuts an input into numbers and pieces, so that one input can be a series of messages."""

from __future__ import annotations


class Cut:
    """Reads an input from its beginning; what lies beyond the end is zero."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        """Whether something is left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        return self.number(1)

    def number(self, size: int) -> int:
        """An unsigned number of so many bytes."""
        return int.from_bytes(self.piece(size), "little")

    def piece(self, size: int) -> bytes:
        """The next bytes, at most so many."""
        self._at += size
        return self._data[self._at - size : self._at]

    def sized(self) -> bytes:
        """A piece whose size stands before it, in two bytes."""
        return self.piece(self.number(2))

    def rest(self) -> bytes:
        return self.piece(len(self._data))


def sized(piece: bytes) -> bytes:
    """What ``Cut.sized`` reads as this piece."""
    return len(piece).to_bytes(2, "little") + bytes(piece)
