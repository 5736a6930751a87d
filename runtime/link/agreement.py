"""Which of several bundles a device and its MEC have in common: asked once, before the device opens one.

A Hello names one bundle, so the device says hello with each in turn, the preferred one first, over a connection of its
own. The MEC welcomes it or tells why not. A MEC that does not answer in time decides nothing; the device goes on with
the preferred bundle, and meets its MEC later.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from controller.errors import RemoteProtocolError
from runtime.link.dealer import Dealer
from runtime.link.mecs.address import MecAddress
from runtime.protocol import wire

#: For all bundles together, of one MEC.
PATIENCE_S = 2.0
#: Name in the hello; the device says its own when it connects to stay.
_NAME = "agreement"


def bundle_in_common(mecs: Sequence[MecAddress], held: Sequence[wire.Held]) -> int | None:
    """Number of the first of these that one of the MECs, asked in order, serves; None if none does, or answers."""
    for mec in mecs:
        if (found := _served_at(mec, held)) is not None:
            return found
    return None


def _served_at(mec: MecAddress, held: Sequence[wire.Held]) -> int | None:
    dealer = Dealer(str(mec.endpoint), keys=mec.keys)
    try:
        end_s = time.monotonic() + PATIENCE_S
        for number, one in enumerate(held):
            if _is_welcome(dealer, one, end_s):
                dealer.send(wire.encode(wire.Bye()))
                return number
    finally:
        dealer.close()
    return None


def _is_welcome(dealer: Dealer, held: wire.Held, end_s: float) -> bool:
    """Whether the MEC welcomes a device that holds this; False too if it does not answer in time."""
    hello, sent = wire.encode(wire.Hello(_NAME, held)), False
    while (left_s := end_s - time.monotonic()) > 0:
        sent = sent or (dealer.connected and dealer.send(hello))
        dealer.wait(min(left_s, 0.1 if sent else 0.01))
        for parts in dealer.receive():
            try:
                message, _ = wire.decode(parts)
            except RemoteProtocolError:
                return False
            if isinstance(message, wire.Welcome | wire.Reject):
                return isinstance(message, wire.Welcome) and message.held == held
    return False
