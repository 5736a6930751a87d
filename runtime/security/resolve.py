"""From the settings to keys, and the rule when keys are needed: wherever an endpoint is not of this machine."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import replace

from controller.errors import UsageError
from runtime.config.rules import check_security, checked
from runtime.config.sections.security import SecuritySection
from runtime.link.endpoint import parse_bind
from runtime.link.mecs.address import MecAddress
from runtime.security.allow_list import DEFAULT_NAME, AllowList
from runtime.security.curve import DeviceKeys, MecKeys
from runtime.security.key_files import public_key, read_pair

Log = Callable[[str], None]


def is_loopback(host: str) -> bool:
    """Whether nothing that is sent to a host, or heard at it, leaves this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def with_keys(mecs: Sequence[MecAddress], security: SecuritySection, log: Log) -> tuple[MecAddress, ...]:
    """The MECs of a device, each with the keys of a connection to it; without keys where a connection is plain.

    UsageError if keys are missing, cannot be read, or are needed. ``log`` takes the warning of a plain connection.
    """
    security = checked(security, "security")
    check_security(security)
    pinned = (security.mec_key,) if isinstance(security.mec_key, str) else security.mec_key or ()
    if security.key is None and not pinned:
        for address in mecs:
            _warn_if_plain(address, security, log)
        return tuple(mecs)
    if security.key is None or not pinned:
        got, missing = ("--mec-key", "--key") if pinned else ("--key", "--mec-key")
        raise UsageError(f"got {got} without {missing}; expected the device's own key and the public key of its MEC")
    if len(pinned) not in (1, len(mecs)):
        raise UsageError(
            f"got {len(pinned)} times --mec-key for {len(mecs)} MECs; expected one for each, or one for all"
        )
    own, theirs = read_pair(security.key), [public_key(key) for key in pinned]
    return tuple(
        replace(address, keys=DeviceKeys(own, key))
        for address, key in zip(mecs, theirs * (len(mecs) // len(theirs)), strict=True)
    )


def check_keys(security: SecuritySection, mecs: Sequence[MecAddress], bind: str) -> None:
    """UsageError if a device of these MECs, or a MEC that listens at ``bind``, would be refused for want of keys. Opens
    no file."""
    for mec in mecs:
        if security.key is None or security.mec_key is None:
            _is_plain(mec, security)
    if security.key is None:
        _listens_plainly(bind, security)


def _is_plain(mec: MecAddress, security: SecuritySection) -> bool:
    """Whether a connection without keys to this MEC leaves the machine; UsageError if the user has not asked for
    that."""
    if is_loopback(mec.endpoint.host):
        return False
    if not security.plain:
        raise UsageError(
            f"--mec {mec.name} is not on this machine, and no keys are given; expected --key FILE (`mecpilot keys new "
            "NAME` makes one) and --mec-key with the MEC's public key, or --plain to go without encryption"
        )
    return True


def _listens_plainly(bind: str, security: SecuritySection) -> bool:
    """The same for a MEC without a key that listens at ``bind``."""
    if is_loopback(parse_bind(bind).host):
        return False
    if not security.plain:
        raise UsageError(
            f"--bind {bind} can be reached from other machines, and no key is given; expected --key FILE "
            "(`mecpilot keys new NAME` makes one, `mecpilot keys allow` admits a device), or --plain to serve "
            "everybody without encryption"
        )
    return True


def _warn_if_plain(mec: MecAddress, security: SecuritySection, log: Log) -> None:
    if not _is_plain(mec, security):
        return
    log(f"WARNING: the connection to {mec.name} is plain: whoever can reach it can read and forge every message")


def mec_keys(security: SecuritySection, bind: str, log: Log) -> MecKeys | None:
    """The keys of a MEC that listens at an endpoint, and its list; None where it listens plainly.

    UsageError if the key is missing, cannot be read, or is needed. ``log`` takes warnings and changes of the list.
    """
    security = checked(security, "security")
    check_security(security)
    if security.key is None:
        if security.allow is not None:
            raise UsageError("got --allow without --key; expected the MEC's own key too")
        if _listens_plainly(bind, security):
            log(f"WARNING: {bind} is plain: whoever can reach it is served, and can read and forge every message")
        return None
    own = read_pair(security.key)
    allowed = AllowList(security.allow or security.key.with_name(DEFAULT_NAME), log)
    if not len(allowed):
        log(f"{allowed.path} lists no device yet, so nobody is admitted; `mecpilot keys allow` adds one at any time")
    return MecKeys(own, allowed)
