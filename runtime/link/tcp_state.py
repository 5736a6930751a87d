"""What the kernel knows of a device's TCP connection: round trip, bytes that are not acknowledged, delivery rate.

ZeroMQ does not tell the descriptor of a connection, but the event ``connected`` of its monitor does. The descriptor
belongs to ZeroMQ: it is only asked here, never read, written or closed. After ZeroMQ closed it the number may belong to
another socket, so events are read before each question, and a socket that is no TCP connection has no state.

Linux only; elsewhere, and before there is a connection, there is no state.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import sys
from dataclasses import dataclass

import zmq

from runtime.link.monitor import Monitor

_LIBC = ctypes.CDLL(None)
_TCP_INFO, _SIOCOUTQ = 11, 0x5411
_INT, _NO_INT = struct.Struct("i"), bytes(4)
#: Of Linux' ``struct tcp_info``: offsets are part of the kernel's interface and never change.
_INFO_BYTES = 216
_RTT_US, _MIN_RTT_US, _RETRANSMITTED = 68, 148, 208
_DELIVERY_RATE = 160
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")
_EVENTS = zmq.EVENT_CONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED


@dataclass(frozen=True, slots=True)
class TcpState:
    """One look at a connection."""

    rtt_s: float  # smoothed by the kernel
    least_rtt_s: float  # of the last minutes
    queued_bytes: int  # not acknowledged: unsent, or on their way
    delivery_bps: float  # how fast the last bytes were acknowledged; 0 if unknown
    retransmitted_bytes: int  # since the connection began

    def as_json(self) -> dict[str, float]:
        """The figures that ``mecpilot device --json`` shows, in milliseconds, bytes and Mbit/s."""
        return {
            "rtt_ms": round(self.rtt_s * 1e3, 3),
            "least_rtt_ms": round(self.least_rtt_s * 1e3, 3),
            "delivery_mbps": round(self.delivery_bps / 1e6, 4),
            "retransmitted_bytes": self.retransmitted_bytes,
        }


def tcp_state(descriptor: int) -> TcpState | None:
    """The state of a connection; None if the descriptor is not one of TCP, or the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    # Not through a socket object: that one would close the descriptor when it is collected.
    info, size = ctypes.create_string_buffer(_INFO_BYTES), ctypes.c_uint(_INFO_BYTES)
    refused = _LIBC.getsockopt(descriptor, socket.IPPROTO_TCP, _TCP_INFO, info, ctypes.byref(size))
    if refused or size.value < _INFO_BYTES:  # a kernel before 5.5 knows less
        return None
    if (queued := queued_bytes(descriptor)) is None:
        return None
    return TcpState(
        rtt_s=_U32.unpack_from(info, _RTT_US)[0] / 1e6,
        least_rtt_s=_U32.unpack_from(info, _MIN_RTT_US)[0] / 1e6,
        queued_bytes=queued,
        delivery_bps=_U64.unpack_from(info, _DELIVERY_RATE)[0] * 8.0,
        retransmitted_bytes=_U64.unpack_from(info, _RETRANSMITTED)[0],
    )


def queued_bytes(descriptor: int) -> int | None:
    """Bytes that a connection has sent and the peer has not acknowledged; None if the system does not tell."""
    try:
        (queued,) = _INT.unpack(fcntl.ioctl(descriptor, _SIOCOUTQ, _NO_INT))
    except OSError:
        return None
    return int(queued)


class TcpWatch:
    """Owns the monitor of a socket with one connection. Made before the socket connects."""

    def __init__(self, watched: zmq.Socket[bytes]) -> None:
        self._monitor = Monitor(watched, _EVENTS)
        self._descriptor: int | None = None

    def state(self) -> TcpState | None:
        """How the connection is now; None without one. Takes some microseconds."""
        self._follow()
        return None if self._descriptor is None else tcp_state(self._descriptor)

    def close(self) -> None:
        """Stop watching; before the watched socket is closed."""
        self._monitor.close()

    def _follow(self) -> None:
        for event, value in self._monitor.events():
            self._descriptor = value if event == zmq.EVENT_CONNECTED else None
