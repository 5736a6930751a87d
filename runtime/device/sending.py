"""Hands payloads to the connection: the first time, and once more if the MEC does not hold what one refers to."""

from __future__ import annotations

import math

from controller.costs import CostTable
from runtime.device.compute import Compute
from runtime.device.emulation import HeadRunner
from runtime.device.fallback import FallbackPlan
from runtime.device.outcomes import Job
from runtime.link.connection import Offload
from runtime.link.link import Clock
from runtime.link.mecs.port import MecPort


class Sending:
    """Sends the payloads of jobs. Owns no state: that of a payload with references is the job's draft."""

    def __init__(
        self,
        compute: Compute,
        costs: CostTable,
        mec: MecPort[Job],
        plan: FallbackPlan,
        heads: HeadRunner,
        clock: Clock,
    ) -> None:
        self._compute, self._costs, self._decisions = compute, costs, costs.space.decisions
        self._mec, self._plan, self._heads, self._clock = mec, plan, heads, clock

    @property
    def is_possible(self) -> bool:
        """An offload can be sent now, and is likely to be answered or loses nothing: a local answer would be late."""
        return self._mec.takes_more and not (self._mec.is_overdue and self._plan.is_useful)

    def send(self, job: Job, payload: bytes, now_s: float) -> float | None:
        """Hand a payload to the connection. Returns the seconds that it occupies the uplink, or None if unknown."""
        decision = self._decisions[job.row]
        space_row, shape = self._compute.row(decision), self._compute.output_shape(decision)
        job.payload_bytes += len(payload)
        offload = Offload(job.row, space_row, shape, payload, job.give_up_s - now_s, job.draft)
        return self._mec.offload(job, offload, now_s)

    def send_again(self, job: Job) -> bool:
        """Send a frame once more, because the MEC did not hold what its payload refers to.

        Returns False if that was done before, or if the payload could not cross before the frame must be answered
        locally. Encoding again takes as long as on the emulated device.
        """
        began_s, draft = self._clock(), job.draft
        if draft is None or not draft.encoded.reference_id or not math.isnan(job.resent_s):
            return False
        draft.encode_again()
        if not self._heads.lengthen(job, began_s):
            return False
        now_s = self._clock()
        self._heads.preempted(now_s - began_s)
        payload = draft.payload()
        crossed_s = now_s + self._costs.request_bytes(len(payload)) * 8.0 / self._mec.uplink_bps
        if not (self.is_possible and self._plan.can_wait(job, crossed_s)):
            return False
        job.resent_s = now_s
        first_s, again_s = job.transmit_s, self.send(job, payload, now_s)
        job.transmit_s = None if first_s is None or again_s is None else first_s + again_s
        return True
