"""The device's half of every stream to one MEC: which payloads later ones may refer to (``runtime.codecs.streams``).

Theory of operation. A device asks for a ``Draft`` before it runs the head of a frame. The head encodes with it, and the
connection sends it. Requests are sent, answered and lost while other heads run, so a draft may be outdated when it is
sent: ``Draft.payload`` then encodes the same frame anew, which takes less time than a rejection.

A new connection and a restarted MEC hold nothing, so every stream begins anew when the link changes. A MEC that does
not hold what a payload refers to says so. Then the stream begins anew as well, unless a payload that stands alone was
sent since: otherwise each of the requests on their way would cost a payload that stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import NDArray

from controller.records import Decision, PayloadKey
from runtime.codecs.streams import (
    KEPT_REFERENCES,
    MOST_AGE,
    MOST_STREAMS,
    Encoded,
    Sender,
    stream_codec,
    stream_key,
)
from runtime.protocol import wire

#: Requests of a stream whose frames are remembered: more than a sender refers to.
_FRAMES_KEPT = 4 * KEPT_REFERENCES


class _Stream:
    """A sender, and what happened to it."""

    def __init__(self, sender: Sender, chained: bool) -> None:
        self.sender = sender
        self.changes = 0  # events after which an earlier draft is outdated
        self._chained = chained
        self._unsent = False  # the newest payload was not handed to the link
        self._alone_id = 0  # of the newest request whose payload stood alone; 0 before the first
        self._frames: dict[int, int] = {}  # of the last requests, by id, oldest first

    def encode(self, array: NDArray[Any], frame: int) -> Encoded:
        if self._unsent and self._chained:  # an encoder cannot go back
            self.forget()
        self.changes += 1
        self._unsent = True
        return self.sender.encode(array, frame)

    def sent(self, request_id: int, encoded: Encoded, frame: int) -> None:
        self._unsent = False
        self._frames[request_id] = frame
        if len(self._frames) > _FRAMES_KEPT:
            del self._frames[next(iter(self._frames))]
        self.sender.sent(request_id)
        if not encoded.reference_id:
            self._alone_id = request_id

    def reference_age(self, frame: int) -> int:
        """Frames from what a payload would refer to now to frame number ``frame``; 0 if it would stand alone."""
        reference_id = 0 if self._unsent and self._chained else self.sender.reference_id
        return max(frame - self._frames.get(reference_id, frame - MOST_AGE), 1) if reference_id else 0

    def unanswered(self, request_id: int) -> None:
        if self._chained and self._stood_alone_since(request_id):
            return  # nothing refers to it any more
        self.changes += 1
        self.sender.unanswered(request_id)

    def unknown_reference(self, request_id: int) -> None:
        if self._stood_alone_since(request_id):
            self.unanswered(request_id)
        else:
            self.forget()

    def forget(self) -> None:
        self.changes += 1
        self._unsent, self._alone_id = False, 0
        self.sender.forget()

    def _stood_alone_since(self, request_id: int) -> bool:
        return bool(self._alone_id) and not wire.was_issued(self._alone_id, request_id)


class Draft:
    """What a stream sends for one frame. Keeps what the head computed, so that it can be encoded anew."""

    def __init__(self, stream: _Stream, frame: int) -> None:
        self.stream, self.frame = stream, frame
        self._array: NDArray[Any] | None = None  # until the head has computed it
        self._changes = -1
        self.encoded = Encoded(b"")

    def encode(self, array: NDArray[Any]) -> bytes:
        """Encode what the head computed. Returns the payload."""
        self._array = array
        self.encoded = self.stream.encode(array, self.frame)
        self._changes = self.stream.changes
        return self.encoded.payload

    def payload(self) -> bytes:
        """What must be sent now, after ``encode``."""
        assert self._array is not None, "encode() first"
        return self.encode(self._array) if self.stream.changes != self._changes else self.encoded.payload

    def encode_again(self) -> None:
        """The frame must be sent once more."""
        assert self._array is not None, "encode() first"
        self.encode(self._array)


class Senders:
    """Owns the streams of one connection, and which of them each open request belongs to."""

    def __init__(self, new_sender: Callable[[Decision], Sender | None] = lambda _: None) -> None:
        """``new_sender``: None for a decision whose payloads have no references."""
        self._new_sender = new_sender
        self._streams: dict[PayloadKey, _Stream] = {}  # the one that was used longest ago first
        self._open: dict[int, _Stream] = {}  # by request id

    def draft(self, decision: Decision, frame: int) -> Draft | None:
        """A draft for frame number ``frame``; None if payloads of the decision have no references."""
        key = stream_key(decision)
        stream = None if key is None else self._streams.pop(key, None) or self._opened(decision)
        if key is None or stream is None:
            return None
        self._streams[key] = stream
        if len(self._streams) > MOST_STREAMS:
            del self._streams[next(iter(self._streams))]
        return Draft(stream, frame)

    def reference_age(self, key: PayloadKey, frame: int) -> int:
        """Frames from what the stream's payload of frame number ``frame`` would refer to if it were encoded now; 0 if
        it would stand alone."""
        stream = self._streams.get(key)
        return 0 if stream is None else stream.reference_age(frame)

    def _opened(self, decision: Decision) -> _Stream | None:
        sender = self._new_sender(decision)
        codec = stream_codec(decision.payload)
        return None if sender is None or codec is None else _Stream(sender, codec.chained)

    def sent(self, request_id: int, draft: Draft) -> None:
        """A draft's payload was handed to the link as this request."""
        draft.stream.sent(request_id, draft.encoded, draft.frame)
        self._open[request_id] = draft.stream

    def answered(self, request_id: int) -> None:
        if (stream := self._open.pop(request_id, None)) is not None:
            stream.sender.answered(request_id)

    def unanswered(self, request_ids: Iterable[int]) -> None:
        for request_id in request_ids:
            if (stream := self._open.pop(request_id, None)) is not None:
                stream.unanswered(request_id)

    def unknown_reference(self, request_ids: Iterable[int]) -> None:
        """The MEC does not hold what these requests refer to."""
        for request_id in request_ids:
            if (stream := self._open.pop(request_id, None)) is not None:
                stream.unknown_reference(request_id)

    def forget(self) -> None:
        """The link has changed: the MEC holds nothing."""
        self._open.clear()
        for stream in self._streams.values():
            stream.forget()
