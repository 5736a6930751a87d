"""The errors that may reach a user, with their exit codes.

Every message is one line: what was got, what was expected, the way out. Errors of this side (usage, failure) end a
command. Errors of the peer (remote protocol) are counted, and the session goes on.
"""

from __future__ import annotations


class MecpilotError(Exception):
    """Base of every error that mecpilot raises on purpose."""

    exit_code = 1


class UsageError(MecpilotError):
    """A request that cannot be carried out as given: unknown name, bad value, malformed file."""

    exit_code = 2


class FailureError(MecpilotError):
    """A valid request that failed: port in use, no data source, disk full."""

    exit_code = 1


class RemoteProtocolError(MecpilotError):
    """The peer sent bytes that are not a valid message."""


def unknown_name(kind: str, got: str, known: list[str] | tuple[str, ...]) -> UsageError:
    """The error for a ``kind`` of name that is not ``known``; its message lists the known names."""
    return UsageError(f"unknown {kind} {got!r}; expected one of: {', '.join(known)}")
