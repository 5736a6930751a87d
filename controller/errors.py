"""Which errors may reach a user, and with which exit code?

Every message is one line: what was got, what was expected, the way out. "We did it" (usage, failure)
and "the peer did it" (remote protocol) are different types: the first ends a command, the second is
counted and the session goes on.
"""

from __future__ import annotations


class MecpilotError(Exception):
    """Base of every error that mecpilot raises on purpose."""

    exit_code = 1


class UsageError(MecpilotError):
    """The user asked for something that cannot be: unknown name, bad value, malformed file."""

    exit_code = 2


class FailureError(MecpilotError):
    """The request was sound but could not be carried out: a port in use, no data source, disk full."""

    exit_code = 1


class RemoteProtocolError(MecpilotError):
    """The peer sent bytes that are not a legal message."""


def unknown_name(kind: str, got: str, known: list[str] | tuple[str, ...]) -> UsageError:
    """The error for a name that is not in a registry, listing what is."""
    return UsageError(f"unknown {kind} {got!r}; expected one of: {', '.join(known)}")
