"""One environment of the twin, as plainly as possible: lists and floats, one event after another.

Slow and obvious where ``envs`` is quick and vectorised; the two must tell the same story to the last digit. It takes
from ``envs`` only what is luck (the noise of a frame, the path of the MEC's queue) and the names of the statuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from controller.costs import CostTable
from controller.predict.uplink import TraceBank
from controller.scenario import Scenario
from controller.timeline import FALLBACK_MARGIN, FALLBACK_SLACK_S, MAX_UNANSWERED
from controller.utility import Utility
from envs.twin.conditions import conditions_of
from envs.twin.mec_queue import neighbour_queue, workload
from envs.twin.tables import NOISE_ROWS, TwinCalibration, _draw_noise
from runtime.bundles.recorded import PayloadBytes, payload_key

PROBE_BYTES, SAMPLE_AGE_S = 1024, 2.0
SILENCE_S, HEARTBEAT_S = 0.875, 0.25
HEAD_RESERVE, SLACK_S, HORIZON = 0.08, 0.002, 20


@dataclass
class Told:
    """A sample that comes at a time."""

    at_s: float
    bps: float
    sent_bytes: float  # up to and including its request
    queue_s: float | None = None  # None for a probe
    mec_slowdown: float | None = None
    reset_slowdown: float | None = None


@dataclass
class Pending:
    """A request whose frame may wait for the MEC."""

    release_s: float
    settle_s: float
    on_time: bool
    fell_back: bool
    overdue_s: float  # from when on it counts as not answered in time
    counted: bool = False


@dataclass
class ReferenceTwin:
    """Runs one scenario; ``seen`` collects what the device knows at each decision, ``done`` what became of it."""

    costs: CostTable
    bank: TraceBank
    score: np.ndarray
    scenario: Scenario
    utility: Utility = field(default_factory=Utility)
    calibration: TwinCalibration = field(default_factory=TwinCalibration)
    queue_limit: int = 2
    max_in_flight: int = 4
    lagged: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))  # as in Recorded
    payload_bytes: PayloadBytes | None = None  # likewise

    def __post_init__(self) -> None:
        s = self.scenario
        self.device_load, self.mec_load = s.device_load(), s.mec_load()
        drawn = conditions_of([s], self.costs.neighbour_mec_s)
        self.noise_start, self.phase = int(drawn["noise_start"][0]), float(drawn["neighbour_start"][0])
        self.neighbour_s = self.costs.neighbour_mec_s * s.mec_slowdown
        self.luck = _draw_noise(self.calibration)
        self.interval_s = 1.0 / s.fps
        self.now_s, self.frame = 0.0, 0
        self.link_free_s = self.reply_s = self.arrival_s = self.done_s = self.extra_s = 0.0
        self.down = (0.0, 0.0)
        self.lost_bytes = self.sent_bytes = 0.0
        self.fallbacks: list[tuple[float, float]] = []  # start, duration
        self.pending: list[Pending] = []
        self.answers: list[tuple[float, int, int]] = []  # out at, frame, row whose answer it is
        self.told: list[Told] = []
        self.device_slowdown = s.device_slowdown / (1 - self.device_load[0])
        self.on_time_frac, self.fallback_frac = 1.0, 0.0
        self.met_s = 0.0
        first_s = self.crossing_s(0.0, PROBE_BYTES)
        self.first_bps = PROBE_BYTES * 8 / max(first_s, 1e-4)
        heard_s = first_s + s.rtt_s + self.calibration.overhead_s - SILENCE_S
        if heard_s > 0:
            self.met_s, self.first_bps = -SILENCE_S, 1000.0
            self.down = (0.0, self.probe(heard_s))

    # The world ----------------------------------------------------------------------------------------------

    def at(self, series: np.ndarray, time_s: float) -> float:
        return float(series[min(int(time_s), len(series) - 1)])

    def crossing_s(self, begin_s: float, size: float) -> float:
        s = self.scenario
        bits = np.array([size * 8.0 / s.uplink_share_frac])
        begin = np.array([s.trace_start_s + begin_s])
        return float(self.bank.finish_s(np.array([s.trace_index]), begin, bits)[0] - begin[0])

    def probe(self, heard_s: float) -> float:
        """After a silence: probe until one is answered in time; the link is down until then."""
        s = self.scenario
        while True:
            begin_s = heard_s + s.rtt_s
            took_s = self.crossing_s(begin_s, PROBE_BYTES)
            echo_s = begin_s + took_s + s.rtt_s + self.calibration.overhead_s
            if echo_s - begin_s <= SILENCE_S:
                break
            heard_s = echo_s
        self.link_free_s, self.reply_s = begin_s + took_s, echo_s
        bps = PROBE_BYTES * 8 / max(took_s, 1e-4)
        self.told.append(Told(echo_s, bps, self.sent_bytes, reset_slowdown=s.mec_slowdown))
        return echo_s

    def probe_idle(self, begin_s: float) -> None:
        """Ask what the uplink carries now; that may silence the link."""
        s, last_bps = self.scenario, self.told[-1].bps if self.told else self.first_bps
        size = min(max(int(last_bps * 0.005 / 8), PROBE_BYTES), 4 * PROBE_BYTES)
        took_s = self.crossing_s(begin_s, size)
        echo_s = begin_s + took_s + s.rtt_s + self.calibration.overhead_s
        if echo_s - begin_s <= SILENCE_S:
            self.link_free_s, self.reply_s = begin_s + took_s, echo_s
            self.told.append(Told(echo_s, size * 8 / max(took_s, 1e-4), self.sent_bytes))
        else:
            self.lost_bytes = self.sent_bytes
            self.down = (begin_s + SILENCE_S, self.probe(echo_s))

    def luck_of(self, row: int) -> float:
        return float(list(self.luck[(self.noise_start + self.frame) % NOISE_ROWS])[row])

    def device_s(self, row: int, time_s: float, luck: float) -> float:
        load = self.at(self.device_load, time_s)
        return float(self.costs.head_s[row]) * self.scenario.device_slowdown / (1 - load) * luck

    def is_down(self, time_s: float) -> bool:
        return self.down[0] <= time_s < self.down[1]

    def unheard(self) -> int:
        return sum(sample.at_s > self.now_s for sample in self.told)

    def heard_s(self) -> float:
        """The last word of the MEC: of a request or a probe, or the echo of a heartbeat that found the uplink free."""
        heard = [sample.at_s for sample in self.told if sample.at_s <= self.now_s]
        echo_s = self.scenario.rtt_s + self.calibration.overhead_s
        ping_s = math.floor((self.now_s - echo_s) / HEARTBEAT_S) * HEARTBEAT_S
        return max([0.0, *heard[-1:], *([ping_s + echo_s] if self.link_free_s <= ping_s else [])])

    def overdue(self) -> bool:
        last = self.pending[-self.max_in_flight :]
        return any(self.heard_s() < request.overdue_s <= self.now_s for request in last)

    # What the device answers alone --------------------------------------------------------------------------

    def fastest(self) -> int:
        return int(self.costs.local_frontier[0])

    def hopeless(self, left_s: float) -> bool:
        return bool(left_s < (1 - HEAD_RESERVE) * self.costs.head_s[self.fastest()] * self.device_slowdown)

    def likely(self, left_s: float, head_s: float) -> float:
        return min(max(0.5 + (left_s / head_s - 1) / (2 * HEAD_RESERVE), 0.0), 1.0)

    def on_time(self, head_s: float, age_s: float, period_s: float) -> float:
        """How likely an answer is in time in the long run."""
        fresh_s = self.scenario.deadline_s - SLACK_S
        if head_s > period_s:
            return min(max((fresh_s - head_s) / self.interval_s - (self.queue_limit - 1), 0.0), 1.0)
        late_s = max(head_s * (1 + HEAD_RESERVE) - (fresh_s - age_s), 0.0)
        late_frames = (1 + late_s / max(period_s - head_s, 1e-9)) * period_s / self.interval_s
        share = min(late_frames / HORIZON, 1.0)
        return share * self.likely(fresh_s - age_s, head_s) + (1 - share) * self.likely(fresh_s, head_s)

    def worth(self, head_s: float, period_s: float, score: float, frames: int) -> float:
        """Utility per frame in the long run."""
        lost = max(head_s - period_s, 0.0) / self.interval_s
        energy = self.utility.energy_weight_per_j * self.utility.energy_j(head_s, 0.0)
        return (score - energy - self.utility.drop_penalty * lost) / (frames + lost)

    def local_worth(self, row: int, age_s: float) -> float:
        c, interval_s = self.costs, self.interval_s
        frames = c.space.decisions[row].frame_stride
        head_s, period_s = float(c.head_s[row]) * self.device_slowdown, frames * interval_s
        score = float(c.accuracy[row]) * self.on_time(head_s, age_s, period_s)
        kept = self.likely(self.scenario.deadline_s - SLACK_S - age_s, head_s) >= 1
        fits_queue = age_s + head_s * (1 + HEAD_RESERVE) <= period_s + self.queue_limit * interval_s
        if head_s > period_s:
            age_s = (self.queue_limit - 0.5) * interval_s
        for ahead in range(1, frames):  # frames that are not run have the answer before until this one is out
            out = age_s + head_s <= ahead * interval_s
            score += float(c.accuracy_at(ahead if out else ahead + frames)[row])
        return self.worth(head_s, period_s, score, frames) + 10 * (head_s <= period_s and kept and fits_queue)

    def instead(self, decided: int) -> int:
        age_s = self.now_s - self.frame * self.interval_s
        worth = {int(row): self.local_worth(int(row), age_s) for row in np.flatnonzero(self.costs.space.device_only)}
        best = max(worth, key=lambda row: worth[row])
        return decided if decided in worth and worth[decided] >= worth[best] - 0.005 else best

    def fallback_row(self, row: int, end_s: float, head_s: float) -> int:
        """Of a fallback long before its deadline, right after the head of its frame."""
        c, frames = self.costs, self.costs.space.decisions[row].frame_stride
        captured = sum(number * self.interval_s <= end_s + 1e-9 for number in range(self.scenario.frames))
        waiting = min(max(captured - self.frame - frames, 0), self.queue_limit)
        share_s = (frames * self.interval_s - head_s) / (1 + waiting)
        age_s = end_s - self.frame * self.interval_s

        def worth(local: int) -> float:
            local_s = float(c.head_s[local]) * self.device_slowdown
            score = float(c.accuracy[local]) * (self.on_time(local_s, age_s, share_s) + frames - 1)
            kept = local_s <= share_s and self.likely(self.scenario.deadline_s - SLACK_S - age_s, local_s) >= 1
            return self.worth(local_s, share_s, score, frames) + 10 * kept

        return max(map(int, c.local_frontier), key=worth)

    def stretched(self, row: int, answer_row: int, start_s: float, end_s: float, head_s: float) -> int:
        """Frames until the next that may be run, after a fallback."""
        frames = self.costs.space.decisions[row].frame_stride
        local_s = float(self.costs.head_s[answer_row]) * self.device_slowdown
        next_s = max(end_s, (self.frame + frames) * self.interval_s)
        if start_s > next_s or local_s <= frames * self.interval_s - head_s:
            return frames
        until = math.ceil((start_s - self.frame * self.interval_s + local_s) / self.interval_s)
        return max(frames, min(until, self.costs.longest_stride))

    def wait_at_mec(self, arrival_s: float) -> tuple[float, float]:
        level = min(round(self.at(self.mec_load, arrival_s) * 100), 95)
        others = workload(*neighbour_queue(), level, self.phase + arrival_s / self.neighbour_s) * self.neighbour_s
        own = max(self.extra_s - (arrival_s - self.arrival_s) * (1 - level / 100), 0.0)
        return max(others + own, self.done_s - arrival_s), others

    # One frame ----------------------------------------------------------------------------------------------

    def run(self, decide: Callable[[int], int]) -> tuple[list[dict], list[dict]]:
        seen, done = [], []
        while self.frame < self.scenario.frames:
            seen.append(self.observe())
            done.append(self.step(decide(len(done))))
        return seen, done

    def step(self, decided: int) -> dict:
        s, space = self.scenario, self.costs.space
        capture_s = self.frame * self.interval_s
        answer_by_s = capture_s + s.deadline_s
        row, fell_back = decided, False
        full = self.unheard() >= MAX_UNANSWERED or self.oldest_release_s() > self.now_s
        full = full or (self.overdue() and not self.hopeless(s.deadline_s))
        if not space.device_only[decided] and (self.is_down(self.now_s) or full):
            row, fell_back = self.instead(decided), True
        elif self.is_down(self.now_s):
            row = self.instead(decided)
        frames = space.decisions[row].frame_stride
        head_s = self.device_s(row, self.now_s, self.luck_of(0))
        end_s = self.now_s + self.calibration.decide_s + head_s
        for start_s, busy_s in self.fallbacks:
            if self.now_s <= start_s < end_s:
                end_s += busy_s
        pace = head_s / float(self.costs.head_s[row])
        self.device_slowdown += 0.2 * (pace - self.device_slowdown)
        busy_until_s, transmit_s, busy_s, sent, silent = end_s, 0.0, head_s, False, False
        answered_s, answer_row = end_s, row
        if not space.device_only[row]:
            give_up_s = max(capture_s + 2 * s.deadline_s, end_s)
            reserve_s = FALLBACK_MARGIN * self.costs.head_s[self.costs.local_frontier[0]] * self.device_slowdown
            due_s = answer_by_s - (reserve_s + FALLBACK_SLACK_S)
            sent = not self.is_down(end_s)
            if sent:
                answered_s, transmit_s = self.send(row, end_s)
                falls_back = end_s <= due_s < answered_s
            else:
                answered_s, due_s, falls_back = np.inf, end_s, end_s < answer_by_s
            start_s = np.inf
            if falls_back:
                start_s = max(due_s, self.fallbacks[-1][0] + self.fallbacks[-1][1] if self.fallbacks else 0.0)
            if falls_back and self.hopeless(answer_by_s - start_s):
                answered_s, silent = start_s, True
            elif falls_back:
                answer_row = self.fastest()
                if not sent and end_s < answer_by_s - (reserve_s + FALLBACK_SLACK_S):
                    answer_row = self.fallback_row(row, end_s, head_s)
                extra_s = self.device_s(answer_row, self.now_s, self.luck_of(1))
                answered_s, busy_s, fell_back = start_s + extra_s, busy_s + extra_s, True
                self.fallbacks.append((start_s, extra_s))
                frames = self.stretched(row, answer_row, start_s, end_s, head_s)
                if not sent:
                    busy_until_s = answered_s
            elif answered_s > give_up_s:
                answered_s, silent = give_up_s, True
            if sent:
                release_s = min(answered_s, start_s)
                late = answered_s > answer_by_s or silent
                overdue_s = start_s if falls_back else max(answer_by_s, end_s) if late else np.inf
                self.pending.append(Pending(release_s, answered_s, not late, fell_back and not late, overdue_s))
        on_time = answered_s <= answer_by_s and not silent
        sample_index = (s.first_sample + self.frame) % self.score.shape[1]
        score = 0.0 if silent else float(self.score[space.variant[answer_row], sample_index])
        energy_j = self.utility.energy_j(busy_s, transmit_s)
        utility = (score if on_time else 0.0) - self.utility.energy_weight_per_j * energy_j
        if not silent:
            self.answers.append((answered_s, self.frame, answer_row))
        if not sent and self.now_s + self.calibration.decide_s - self.reply_s >= SAMPLE_AGE_S:
            self.probe_idle(self.now_s + self.calibration.decide_s)
        following = self.frame + frames
        reused_score = self.skip(min(following, s.frames))
        frame, dropped = self.frame, self.advance(busy_until_s, following)
        self.count(None if sent else (on_time, on_time and fell_back), dropped)
        return {
            "frame": frame,
            "status": ("fallback" if fell_back else "ok") if on_time else "late",
            "latency_s": answered_s - capture_s,
            "score": score,
            "energy_j": energy_j,
            "utility": utility,
            "dropped": dropped,
            "reused_frames": min(following, s.frames) - frame - 1,
            "reused_score": reused_score,
            "reward": utility + reused_score - self.utility.drop_penalty * dropped,
        }

    def skip(self, following: int) -> float:
        """Scores of the frames from the next one to ``following``: the newest answer out at their capture."""
        total = 0.0
        for frame in range(self.frame + 1, following):
            out = [(source, row) for out_s, source, row in self.answers if out_s <= frame * self.interval_s]
            if out:
                source, row = max(out)
                sample = (self.scenario.first_sample + source) % self.score.shape[1]
                lag = min(frame - source, len(self.lagged))
                total += float(self.lagged[lag - 1][self.costs.space.variant[row], sample])
        return total

    def send(self, row: int, end_s: float) -> tuple[float, float]:
        """Reply time and transmission time; what the reply tells is noted for later."""
        s, c = self.scenario, self.costs
        if self.payload_bytes is None:
            mean = float(c.payload_bytes[row])
            payload = max(mean + float(c.payload_std_bytes[row]) * self.luck_of(3), mean / 2)
        else:
            sample = (s.first_sample + self.frame) % self.score.shape[1]
            payload = float(self.payload_bytes[payload_key(c.space.decisions[row])][sample])
        begin_s = max(end_s, self.link_free_s)
        transmit_s = self.crossing_s(begin_s, payload + self.calibration.header_bytes)
        arrival_s = begin_s + transmit_s + s.rtt_s / 2 + self.calibration.overhead_s
        queue_s, others_s = self.wait_at_mec(arrival_s)
        pace = s.mec_slowdown * self.luck_of(2)
        served = queue_s <= max(self.frame * self.interval_s + 2 * s.deadline_s - end_s, 0.0)
        tail_s = float(c.mec_s[row]) * pace if served else 0.0
        done_s = arrival_s + queue_s + tail_s
        reply_s = done_s + s.rtt_s / 2
        silent_from_s = max(end_s, self.reply_s)
        breaks = reply_s - silent_from_s > SILENCE_S
        lost = breaks or end_s < self.down[1]
        self.sent_bytes += payload
        self.link_free_s, self.reply_s = begin_s + transmit_s, reply_s
        self.arrival_s, self.done_s, self.extra_s = arrival_s, done_s, queue_s - others_s + tail_s
        sample = Told(reply_s, payload * 8 / max(transmit_s, 1e-4), self.sent_bytes, queue_s, pace if served else None)
        if lost:
            self.lost_bytes = self.sent_bytes
        else:
            self.told.append(sample)
        if breaks:
            from_s = silent_from_s + SILENCE_S
            self.down = (self.down[0] if self.down[1] > from_s else from_s, self.probe(reply_s))
        return reply_s, transmit_s

    def oldest_release_s(self) -> float:
        """When the place is free that the next request takes."""
        return self.pending[-self.max_in_flight].release_s if len(self.pending) >= self.max_in_flight else -np.inf

    def advance(self, busy_until_s: float, first: int) -> int:
        """Move to the next decision point; how many frames were dropped on the way."""
        now_s = max(busy_until_s, first * self.interval_s)
        if self.hopeless(self.scenario.deadline_s):
            now_s = max(now_s, self.oldest_release_s())
        for start_s, duration_s in self.fallbacks:
            if start_s <= now_s:
                now_s = max(now_s, start_s + duration_s)
        frames = self.scenario.frames
        captured = sum(number * self.interval_s <= now_s + 1e-9 * self.interval_s for number in range(frames))
        waiting = list(range(first, captured))
        dropped = max(len(waiting) - self.queue_limit, 0)
        self.queued = max(len(waiting) - dropped - 1, 0)
        self.now_s, self.frame = now_s, first + dropped
        return dropped

    def count(self, at_once: tuple[bool, bool] | None, dropped: int) -> None:
        outcomes = [(p.on_time, p.fell_back) for p in self.pending if not p.counted and p.settle_s <= self.now_s]
        for p in self.pending:
            p.counted = p.counted or p.settle_s <= self.now_s
        outcomes += [(False, False)] * dropped + ([at_once] if at_once else [])
        if outcomes:
            forget = 0.9 ** len(outcomes)
            on_time, fell_back = np.mean(outcomes, axis=0)
            self.on_time_frac = forget * self.on_time_frac + (1 - forget) * on_time
            self.fallback_frac = forget * self.fallback_frac + (1 - forget) * fell_back

    def observe(self) -> dict:
        """What the device knows now."""
        heard = [sample for sample in self.told if sample.at_s <= self.now_s]
        replies = [sample for sample in heard if sample.queue_s is not None]
        slowdown = announced = self.scenario.mec_slowdown
        for sample in heard:
            if sample.mec_slowdown is not None:
                slowdown += 0.2 * (sample.mec_slowdown - slowdown)
            if sample.reset_slowdown is not None:
                slowdown = sample.reset_slowdown
        queues = [0.0] * 8
        for sample in heard:  # a probe tells nothing of the queue: the last value stands
            queues.append(queues[-1] if sample.queue_s is None else sample.queue_s)
        reply_age_s = self.now_s - (replies[-1].at_s if replies else self.met_s)
        believed = 0.5 ** max(reply_age_s - SAMPLE_AGE_S, 0.0)
        newest_first = [sample.bps for sample in reversed(heard)]
        newest_first += [self.first_bps if self.met_s == 0.0 or not heard else heard[0].bps] * 8
        crossed = max(heard[-1].sent_bytes if heard else 0.0, self.lost_bytes if self.now_s >= self.down[0] else 0.0)
        return {
            "frame_age_s": self.now_s - self.frame * self.interval_s,
            "uplink_bps": newest_first[:8],
            "uplink_sample_count": len(heard) + (self.met_s == 0.0),
            "uplink_age_s": self.now_s - (heard[-1].at_s if heard else self.met_s),
            "uplink_backlog_bytes": self.sent_bytes - crossed,
            "rtt_s": self.scenario.rtt_s + self.calibration.overhead_s,
            "device_slowdown": self.device_slowdown,
            "queued_frames": getattr(self, "queued", 0),
            "in_flight": sum(p.release_s > self.now_s for p in self.pending),
            "mec_queue_s": (replies[-1].queue_s if replies else 0.0) * believed,
            "mec_queue_mean_s": sum(queues[-8:]) / 8 * believed,
            "mec_slowdown": announced * (slowdown / announced) ** believed,
            "mec_age_s": reply_age_s,
            "link_up": not self.is_down(self.now_s),
            "on_time_frac": self.on_time_frac,
            "fallback_frac": self.fallback_frac,
        }
