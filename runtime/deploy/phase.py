"""How far a release is on its way to being current; its words cross the wire in a status."""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """How far the newest proposal is."""

    IDLE = "idle"
    VERIFYING = "verifying"
    RECEIVING = "receiving"
    CHECKING = "checking"
    COMMITTED = "committed"
    REFUSED = "refused"
    REVERTED = "reverted"

    @property
    def is_busy(self) -> bool:
        """The worker is at it."""
        return self in (Phase.VERIFYING, Phase.CHECKING)
