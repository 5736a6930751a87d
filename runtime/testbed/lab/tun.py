"""TUN devices: interfaces whose packets a process reads and writes.

The kernel completes the checksums of these packets and cuts them to the interface's size. Packets that are copied from
one virtual cable to another would lack both.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator

from controller.errors import FailureError

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
#: Larger than any packet of an interface.
_MOST_BYTES = 1 << 16


def open_tun(name: str) -> int:
    """A new interface of this name in the namespace of this thread; it lives as long as the descriptor is open."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        os.close(descriptor)
        raise FailureError(f"cannot make the interface {name}: {error.strerror}") from None
    return descriptor


def packets_of(descriptor: int) -> Iterator[bytes]:
    """IP packets that have left through the interface."""
    while True:
        try:
            yield os.read(descriptor, _MOST_BYTES)
        except BlockingIOError:
            return
