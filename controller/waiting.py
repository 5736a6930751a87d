"""The rule at the last moment: answer a frame here, or wait on for the MEC?

Device and twin share it (``envs.twin.compiled``). The last moment is the latest at which the fastest device-only row
still ends before the deadline. On a slow device it comes early, often before the reply was to be expected; a fallback
then throws a good answer away, and delays the next frames. So the two are compared once, at that moment:

* Waiting earns the accuracy of the decided row times the chance that the reply still comes in time.
* A fallback earns the accuracy of the fastest row, less the energy. Device time that it takes beyond the frame's own
  period is time that later frames lose; each of these would have earned what waiting does.

The chance is counted, not modelled. With the bandwidth and the wait at the MEC that one of the last replies reported,
this reply would come at some moment. Reports with which it would be here already are refuted. Of the others, those with
which it is in time speak for waiting; the rest, and one more case, that no reply comes at all, speak against it. So a
request that is later than any report explains has no chance, and a dead MEC costs no more than the frames whose replies
were not to be expected before the last moment.
"""

from __future__ import annotations

from typing import NamedTuple

from controller.fallback import SLACK_S, FallbackTable, FrameTiming, Numbers
from controller.records import UPLINK_HISTORY


class Awaited(NamedTuple):
    """What is known of a reply that has not come."""

    begin_s: float  # when the oldest unanswered payload began to cross
    bits: float  # that cross from then on, up to and with the own payload
    served_s: float  # expected round trip and time of the tail
    queue_weight: float  # of the reported waits: how far they are still believed, 0 to 1


def reply_chance(
    reply: Awaited, uplink_bps: Numbers, queue_s: Numbers, newest: int, now_s: float, answer_by_s: float
) -> float:
    """Chance, 0 to below 1, that a reply that is not here by ``now_s`` comes by ``answer_by_s``.

    ``uplink_bps`` and ``queue_s`` are rings of what replies reported, the newest one at place ``newest``; the last
    UPLINK_HISTORY of them count.
    """
    later = in_time = 0
    for k in range(UPLINK_HISTORY):
        place = (newest - k) % len(uplink_bps)
        crossed_s = reply.begin_s + reply.bits / uplink_bps[place]
        at_s = crossed_s + queue_s[place] * reply.queue_weight + reply.served_s
        if at_s > now_s:
            later += 1
            if at_s <= answer_by_s - SLACK_S:
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
