"""The rule at the last moment: answer a frame here, or wait on for the MEC?

Device and twin share it (``envs.twin.compiled``). The last moment is the latest at which the fastest device-only row
still ends before the deadline. On a slow device it comes early, often before the reply was to be expected; a fallback
then throws a good answer away, and delays the next frames. So the two are compared once, at that moment:

* Waiting earns the accuracy of the decided row times the chance that the reply still comes in time.
* A fallback earns the accuracy of the fastest row, less the energy. Device time that it takes beyond the frame's own
  period is time that later frames lose; each of these would have earned what waiting does.

The chance is counted, not modelled. Under each of the last uplink samples the reply would come at some moment. Samples
under which it would be here already are refuted. Of the others, those in time speak for waiting; the rest, and one more
case, that no reply comes at all, against it. So a request that is later than any sample explains has no chance, and a
dead MEC costs no more than the frames whose replies were not to be expected before the last moment.
"""

from __future__ import annotations

from controller.fallback import SLACK_S, FallbackTable, FrameTiming, Numbers
from controller.records import UPLINK_HISTORY


def reply_chance(uplink_bps: Numbers, newest: int, bits: float, passed_s: float, left_s: float) -> float:
    """Chance, 0 to below 1, that a reply that is not here comes in time.

    ``uplink_bps`` is a ring of samples in bit/s, with the newest at place ``newest``; the last UPLINK_HISTORY count.
    ``bits`` have to cross, those of unanswered requests before this one included. The reply would be here if they had
    taken up to ``passed_s``, and comes in time if they take up to ``left_s``.
    """
    later = in_time = 0
    for k in range(UPLINK_HISTORY):
        crossing_s = bits / uplink_bps[(newest - k) % len(uplink_bps)]
        if crossing_s > passed_s:
            later += 1
            if crossing_s <= left_s - SLACK_S:
                in_time += 1
    return in_time / (later + 1.0)


def is_worth_waiting(t: FallbackTable, at: FrameTiming, row: int, stride: int, head_s: float, chance: float) -> bool:
    """Whether a frame earns more by waiting for the reply than by the fallback of the last moment.

    ``row`` is the decided one, which took ``head_s`` of device time and covers ``stride`` frames.
    """
    busy_s, period_s = at.slowdown * t.fastest_s, stride * at.capture_period_s
    lost = max(head_s + busy_s - period_s, 0.0) / period_s
    waiting = chance * t.every_accuracy[row]
    return waiting * (1.0 + lost) > t.frontier_accuracy[0] - t.cost_per_s * busy_s
