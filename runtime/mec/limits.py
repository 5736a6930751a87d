"""What one device may take of a MEC: messages, bytes, and what happens when it takes more.

Theory of operation. Every message takes tokens from the buckets of its device, before it is decoded. A message that
finds a bucket empty is shed: twenty of these a second are decoded, and rejected if they are requests; all others are
dropped unread, so a flood costs little and is not reflected. A device that goes on has its connection closed, because
whatever a MEC leaves unread it would have to read later: ZeroMQ cannot pause one peer. Who is known by name stays
barred for a while, longer after each time. On plain connections only the address can be barred, and for a short time,
because others may share it (``runtime.link.connections``).

A plain peer may also leave before it is cut off, and come again as a new device. What new devices begin with is
therefore a budget of their address: the first ``ADDRESS_DEVICES`` begin with ``FIRST_MESSAGES``, and
``ADDRESS_DEVICES_PER_S`` more in each second; any further one with ``FEW_MESSAGES``, enough for a greeting. Its rate is
that of every device.

A malformed message costs ``FAULT_MESSAGES`` tokens more, and so does a request beyond those of one device that may
wait: a device of ours makes neither.
"""

from __future__ import annotations

import enum
import math

from runtime.config.sections.admission import AdmissionSection
from runtime.link.router import Incoming

#: Tokens of a device that was not known before: it says hello, probes its uplink, and asks.
FIRST_MESSAGES = 64
FIRST_BYTES = 16e6
FEW_MESSAGES = 8
FEW_BYTES = 1e6
#: New plain devices of one address that begin with all of these at once, and in each second. All devices of a machine
#: that plays a fleet share one address, and so do those behind one router.
ADDRESS_DEVICES, ADDRESS_DEVICES_PER_S = 256.0, 8.0
FAULT_MESSAGES = 5
#: Rejections per second that tell a device that it is shed, and how many of them at once.
ANSWERS_PER_S, MOST_ANSWERS = 20.0, 20.0
#: Shed messages per second that are borne, and how many of them at once.
PATIENCE_PER_S, MOST_PATIENCE = 16.0, 64.0
#: A shed message of this size counts twice: reading it took as long.
LARGE_BYTES = 64 << 10
FIRST_BAR_S, MOST_BAR_S = 1.0, 60.0
#: A device that was quiet for this long is as good as new.
FORGET_S = 120.0
#: Beyond this number those that were quiet longest are forgotten, so a flood of connections cannot fill memory.
MOST_ACCOUNTS = 4096
MOST_ADDRESSES = 1024


class Verdict(enum.Enum):
    """What becomes of a message."""

    PASS = enum.auto()  # it is handled
    SHED = enum.auto()  # its device takes too much: a request is rejected, anything else dropped
    DROP = enum.auto()  # the same, without an answer
    CUT = enum.auto()  # the same, and its connection is closed


class TokenBucket:
    """Tokens that come back at a rate, up to a second's worth or ``most``. Taking may leave a debt."""

    __slots__ = ("_at_s", "_most", "_per_s", "tokens")

    def __init__(self, per_s: float, now_s: float, most: float | None = None, first: float = math.inf) -> None:
        self._per_s, self._most, self._at_s = per_s, per_s if most is None else most, now_s
        self.tokens = min(first, self._most)

    def take(self, count: float, now_s: float) -> bool:
        """Take so many tokens if there is at least a part of one; False if there is none."""
        tokens = min(self.tokens + (now_s - self._at_s) * self._per_s, self._most)
        self._at_s = now_s
        if tokens <= 0.0:
            self.tokens = tokens
            return False
        self.tokens = tokens - count
        return True

    def charge(self, count: float) -> None:
        """Take tokens whether they are there or not."""
        self.tokens -= count


class Account:
    """What one device has left. ``waiting`` and ``finish`` belong to the queue (``runtime.mec.queue``)."""

    __slots__ = (
        "_answers",
        "_bar_s",
        "_barred_until_s",
        "_bytes",
        "_messages",
        "_patience",
        "finish",
        "heard_s",
        "waiting",
    )

    def __init__(self, limits: AdmissionSection, now_s: float, few: bool = False) -> None:
        """``few``: its address has used up what new devices begin with."""
        messages, bytes_ = limits.device_message_rate, 1e6 * limits.device_mbyte_rate
        first, first_bytes = (FEW_MESSAGES, FEW_BYTES) if few else (FIRST_MESSAGES, FIRST_BYTES)
        self._messages = None if math.isinf(messages) else TokenBucket(messages, now_s, first=first)
        self._bytes = None if math.isinf(bytes_) else TokenBucket(bytes_, now_s, first=first_bytes)
        self._answers = TokenBucket(ANSWERS_PER_S, now_s, MOST_ANSWERS)
        self._patience = TokenBucket(PATIENCE_PER_S, now_s, MOST_PATIENCE)
        self._bar_s, self._barred_until_s = FIRST_BAR_S, -math.inf
        self.heard_s = now_s
        self.waiting = 0  # requests in the queue
        self.finish = 0.0  # when its last request would end, in the queue's virtual time

    def judge(self, size_bytes: int, now_s: float) -> Verdict:
        """What becomes of a message of that size."""
        self.heard_s = now_s
        if now_s < self._barred_until_s:
            return Verdict.CUT
        messages, bytes_ = self._messages, self._bytes
        if (messages is None or messages.take(1.0, now_s)) and (bytes_ is None or bytes_.take(size_bytes, now_s)):
            return Verdict.PASS
        if not self._patience.take(1.0 + size_bytes / LARGE_BYTES, now_s):
            self._barred_until_s = now_s + self._bar_s
            self._bar_s = min(2.0 * self._bar_s, MOST_BAR_S)
            self._patience.tokens = MOST_PATIENCE
            return Verdict.CUT
        return Verdict.SHED if self._answers.take(1.0, now_s) else Verdict.DROP

    def fault(self) -> None:
        """A message that passed was malformed, or one that no device would have sent."""
        if self._messages is not None:
            self._messages.charge(FAULT_MESSAGES)

    def may_be_forgotten(self, now_s: float) -> bool:
        """Whether nothing is held against the device, and none of its requests waits."""
        return not self.waiting and now_s > self._barred_until_s


class Accounts:
    """Owns the account of every device: by its name where the peer has proved one, else by its connection."""

    def __init__(self, limits: AdmissionSection) -> None:
        self._limits = limits
        self._accounts: dict[str | bytes, Account] = {}
        self._addresses: dict[str, TokenBucket] = {}  # new devices that an address has left, of plain connections

    def __len__(self) -> int:
        return len(self._accounts)

    def of(self, arrived: Incoming, now_s: float) -> Account:
        """The account of the device that sent a message."""
        key = arrived.user or arrived.peer
        account = self._accounts.get(key)
        if account is None:
            if len(self._accounts) >= MOST_ACCOUNTS:
                self._forget_half(now_s)
            account = self._accounts[key] = Account(self._limits, now_s, few=not self._has_room(arrived, now_s))
        return account

    def _has_room(self, arrived: Incoming, now_s: float) -> bool:
        """Whether one more new device of this address begins with all that a new device may have."""
        if arrived.user or not (address := arrived.address):
            return True
        bucket = self._addresses.get(address)
        if bucket is None:
            if len(self._addresses) >= MOST_ADDRESSES:
                del self._addresses[next(iter(self._addresses))]
            bucket = self._addresses[address] = TokenBucket(ADDRESS_DEVICES_PER_S, now_s, ADDRESS_DEVICES)
        return bucket.take(1.0, now_s)

    def forget(self, now_s: float) -> None:
        """Forget devices that have been quiet for ``FORGET_S``."""
        self._forget_before(now_s - FORGET_S, now_s)

    def _forget_half(self, now_s: float) -> None:
        heard_s = sorted(account.heard_s for account in self._accounts.values())
        self._forget_before(heard_s[len(heard_s) // 2], now_s)

    def _forget_before(self, heard_s: float, now_s: float) -> None:
        kept = self._accounts.items()
        for key in [key for key, one in kept if one.heard_s <= heard_s and one.may_be_forgotten(now_s)]:
            del self._accounts[key]
