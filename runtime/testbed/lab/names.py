"""Addresses and interfaces of a lab. Its namespaces reach nothing else, so they are the same in every lab."""

from __future__ import annotations

#: Ends of the uplink: the modem's interface, whose queue is shaped, and the MEC's.
UPLINK, DOWNLINK = "uplink", "downlink"
NEAR_ADDRESS, FAR_ADDRESS = "10.78.0.1", "10.78.0.2"
#: Devices have networks of their own behind the modem, as many as fit into one byte of an address.
MOST_DEVICES = 200


def device_address(number: int) -> str:
    """Address of a device, counted from 0."""
    return f"10.77.{number}.2"


def gateway_address(number: int) -> str:
    """Address of the modem as that device sees it."""
    return f"10.77.{number}.1"
