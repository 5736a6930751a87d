"""What the device knows of its MEC while a request is in flight, and the rule at the last moment.

``controller.waiting`` has the rule, which a device follows, too. What happens to a frame is settled at its decision
point, but the rule may only use what the device has heard by the last moment.
"""

from __future__ import annotations

from typing import Any

from controller.timeline import believed_frac, slowdown_now
from controller.waiting import Awaited, is_worth_waiting, reply_chance
from envs.twin.link import heard_by, heard_s
from envs.twin.state import Environment, link_is_down, sample_place, timing
from envs.twin.tables import TwinTables


def waits_on(t: TwinTables, env: Environment, record: Any, due_s: float) -> bool:
    """Whether the frame of a request that was not answered by ``due_s``, its last moment, waits on."""
    if link_is_down(env.state, due_s) or is_overdue(t, env, due_s, record.begin_s):
        return False
    chance, stride = _chance(t, env, record, due_s), t.decisions[record.row].stride
    return is_worth_waiting(t.local, timing(env, due_s), record.row, stride, record.head_s, chance)


def is_overdue(t: TwinTables, env: Environment, at_s: float, busy_from_s: float) -> bool:
    """Whether a request was not answered in time, and the MEC has not been heard since; the uplink has no room for
    heartbeats from ``busy_from_s`` on."""
    last_s = heard_s(t, env, at_s, busy_from_s)
    for k in range(len(env.requests)):  # noqa: SIM110 - compiled code has no generators
        if last_s < env.requests[k].overdue_s <= at_s:
            return True
    return False


def _chance(t: TwinTables, env: Environment, record: Any, now_s: float) -> float:
    """Chance that the reply to the request of ``record`` comes in time, as the device sees it."""
    conditions, heard = env.conditions, heard_by(env, now_s)
    sent_bytes = env.state.sent_bytes + record.uplink_bytes
    lost_bytes = env.state.lost_bytes if now_s >= env.state.down_from_s else 0.0
    bits = 8.0 * (sent_bytes - max(env.samples[sample_place(heard - 1)].sent_bytes, lost_bytes))
    tail_s = t.decisions[record.row].mec_s * mec_slowdown(env, heard, now_s)
    served_s = conditions.rtt_s + t.calibration.overhead_s + tail_s
    believed = believed_frac(now_s - env.samples[sample_place(heard - 1)].reply_s)
    reply = Awaited(_oldest_begin_s(env, record, heard), bits, served_s, believed)
    bps, queue_s, newest = env.samples["uplink_bps"], env.samples["queue_s"], sample_place(heard - 1)
    return reply_chance(reply, bps, queue_s, newest, now_s, record.capture_s + conditions.deadline_s)


def _oldest_begin_s(env: Environment, record: Any, heard: int) -> float:
    """When the oldest payload without a reply began to cross, of those up to the request of ``record``."""
    for number in range(heard, env.state.told):
        sample = env.samples[sample_place(number)]
        if sample.at_s == sample.reply_s:  # the echo of a probe is no reply
            return sample.begin_s
    return record.begin_s


def mec_slowdown(env: Environment, heard: int, now_s: float) -> float:
    """Slowdown of the MEC as the last of ``heard`` samples tells it; an old report counts less."""
    newest = env.samples[sample_place(heard - 1)]
    return slowdown_now(newest.mec_slowdown, env.conditions.mec_slowdown, believed_frac(now_s - newest.reply_s))
