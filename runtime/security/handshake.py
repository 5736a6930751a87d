"""Shakes hands once with a MEC whose port encrypts, to find out why it does not answer.

ZeroMQ's own connections stay silent about a handshake that fails, and a monitor on each of them would cost every
connection. So a device whose MEC does not answer makes one more connection, with a monitor, and reads the reason.
"""

from __future__ import annotations

import contextlib
import time

import zmq

from runtime.link.monitor import Monitor
from runtime.security.curve import DeviceKeys
from runtime.security.keys import fingerprint

_WAIT_S = 1.0
_ENDINGS = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_SUCCEEDED,
)


def trouble_of_handshake(endpoint: str, keys: DeviceKeys) -> str:
    """Why a handshake with the MEC at a numeric endpoint fails; empty if it does not, or if that takes too long."""
    match _outcome(endpoint, keys):
        case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return (
                f"the MEC does not know this device's key, fingerprint {keys.fingerprint}: it is not on its list; run "
                "`mecpilot keys allow NAME NAME.pub` there"
            )
        case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            return (
                "what listens there ended the handshake: overloaded, or it may not have the pinned key, fingerprint "
                f"{fingerprint(keys.mec)}; get the MEC's .pub file again and compare fingerprints"
            )
        case _:
            return ""


def _outcome(endpoint: str, keys: DeviceKeys) -> int | None:
    """How the handshake ended; None if it had not within a second."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        for option, value in (*keys.options, (zmq.LINGER, 0), (zmq.RECONNECT_IVL, -1), (zmq.IPV6, "[" in endpoint)):
            dealer.set(option, value)
        end_s = time.monotonic() + _WAIT_S
        with contextlib.closing(Monitor(dealer, sum(_ENDINGS))) as monitor:
            dealer.connect(endpoint)
            while (left_s := end_s - time.monotonic()) > 0:
                if monitor.wait(left_s):
                    return next(kind for kind, _ in monitor.events())
    return None
