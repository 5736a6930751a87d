"""The types of the fields of messages, with their bounds, and the base of all messages."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

#: Ids of requests and pings go from 1 to this, then from 1 again (after 5.6 years at 24 a second); 0 means no id.
MAX_ID = 2**32 - 1
MAX_MS = 3_600_000
MAX_TEXT = 512

MessageId = Annotated[int, Meta(ge=1, le=MAX_ID)]
#: Text from a peer may be logged, so it must not contain control characters.
_PLAIN = r"\A[^\x00-\x1f\x7f]*\Z"
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=_PLAIN)]
Digest = Annotated[str, Meta(max_length=128, pattern=_PLAIN)]
Text = Annotated[str, Meta(max_length=MAX_TEXT, pattern=_PLAIN)]
Milliseconds = Annotated[int, Meta(ge=0, le=MAX_MS)]
#: Milliseconds would be too coarse: a small tail takes 1 ms, and the uplink time is found by subtracting it.
Microseconds = Annotated[int, Meta(ge=0, le=MAX_MS * 1000)]


class Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every message and of its parts."""
