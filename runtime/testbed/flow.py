"""One direction of a connection through the proxy: bytes that wait for the rate and the delay of the link."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass
class Flow:
    """Owns the bytes on their way, and when the link is free again. Bytes keep their order when rate or delay change.

    Its memory is bounded by what the device has unanswered: eight payloads.
    """

    _waiting: deque[tuple[float, bytes]] = field(default_factory=deque)  # when they arrive
    _free_s: float = 0.0
    _last_s: float = 0.0  # when the last bytes arrive

    def push(self, data: bytes, now_s: float, rate_bps: float, delay_s: float) -> None:
        """Bytes enter the link; ``rate_bps`` may be inf."""
        self._free_s = max(self._free_s, now_s) + 8.0 * len(data) / rate_bps
        self._last_s = max(self._last_s, self._free_s + delay_s)
        self._waiting.append((self._last_s, data))

    def pop(self, now_s: float) -> bytes:
        """The bytes that have arrived since the last call."""
        arrived = []
        while self._waiting and self._waiting[0][0] <= now_s:
            arrived.append(self._waiting.popleft()[1])
        return b"".join(arrived)
