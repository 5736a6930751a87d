"""A cache of tails: a payload that comes again byte by byte, for the same decision, gets the same outputs at once.

Keys are a digest of the row and the payload. The outputs are those that this MEC computed for just these bytes, so they
are equal bit by bit, whichever device asks; one device can never change another's answer, and the entries can serve all
of them. (A device whose request is answered this fast can tell that some device has sent just these bytes before.)
Payloads that refer to earlier ones are left out, because their bytes alone do not say what they mean. Similar payloads
are left to the cache on the device, which also saves the uplink: an answer to a similar picture is for the device to
accept, not for the MEC to give.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import numpy as np

from controller.cache.eviction import Gdsf
from controller.cache.worth import Worth
from controller.records import Float32s

#: Bytes of an entry beside its outputs: its key, and the records that find it.
ENTRY_BYTES = 1024


class Tails:
    """Owns outputs, at most so many bytes. Rests where payloads do not come again (``controller.cache.worth``),
    because then it only costs the time of the digests."""

    def __init__(self, most_bytes: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._most_bytes, self._clock = most_bytes, clock
        self._outputs: dict[int, Float32s] = {}
        self._entry_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}
        self._eviction, self._worth = Gdsf(), Worth()
        self._count = self._bytes = 0

    def __len__(self) -> int:
        return len(self._outputs)

    @property
    def kept_bytes(self) -> int:
        """Upper bound of the memory of all entries."""
        return self._bytes

    def key(self, row: int, payload: bytes | bytearray | memoryview) -> bytes | None:
        """The key of a request; None while the cache rests."""
        if not self._worth.looks_up():
            return None
        began_s = self._clock()
        digest = hashlib.blake2b(payload, digest_size=32, salt=row.to_bytes(8, "little")).digest()
        self._worth.looked(self._clock() - began_s, digest in self._entry_of)
        return digest

    def outputs(self, key: bytes) -> Float32s | None:
        """The outputs of an equal request; None if there are none."""
        entry = self._entry_of.get(key)
        if entry is None:
            return None
        self._eviction.used(entry)
        return self._outputs[entry]

    def add(self, key: bytes, outputs: Float32s, took_s: float) -> None:
        """Keep outputs that took so long to compute, and drop others until they fit."""
        self._worth.run_s.add(took_s)
        size_bytes = _size(outputs)
        if size_bytes > self._most_bytes or key in self._entry_of:
            return
        entry = self._count = self._count + 1
        self._outputs[entry] = np.array(outputs)  # a copy of its own: an engine may use its memory again
        self._entry_of[key], self._key_of[entry] = entry, key
        self._bytes += size_bytes
        self._eviction.added(entry, size_bytes, took_s)
        while self._bytes > self._most_bytes:
            self._remove(self._eviction.victim())

    def _remove(self, entry: int) -> None:
        self._bytes -= _size(self._outputs.pop(entry))
        del self._entry_of[self._key_of.pop(entry)]
        self._eviction.removed(entry)


def _size(outputs: Float32s) -> int:
    return outputs.nbytes + ENTRY_BYTES
