"""Counts how often a pinned decision was carried out: where it cannot be, the device answers with another one."""

from __future__ import annotations

from controller.records import Decision, Outcome, Status
from runtime.observe.summary import percent


class PinnedCount:
    """A sink that owns the counts of a run with one decision for every frame."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self._carried_out = {decision, decision.whole}  # a crop may be the whole picture, where nothing moves
        self._run = self._replaced = 0

    def add(self, outcome: Outcome) -> None:
        if outcome.status.ran:
            self._run += 1
            self._replaced += outcome.status is Status.FALLBACK or outcome.decision not in self._carried_out

    def close(self) -> None:
        """Nothing to do: the counts stay available."""

    @property
    def text(self) -> str:
        """One line about the frames that the device answered in another way; "" without any."""
        if not self._replaced:
            return ""
        share = percent(self._replaced / self._run)
        return (
            f"the pinned decision ({self._decision.label}) was replaced by a local answer for {share} of the frames "
            "that were run: the MEC could not be asked, or did not answer in time"
        )
