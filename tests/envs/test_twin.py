"""The twin tells the story of the timeline: by hand, and against the device itself."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest
from support.simulated import FAST, OFFLOAD, RTT_S, SimCompute, Simulation
from support.simulated import table as device_table
from support.stream import stream_costs, stream_recorded
from support.twins import make_twin, recorded, scores_only, table, traces

from controller.errors import UsageError
from controller.predict.arrivals import LEVELS, STREAM_UNITS
from controller.predict.uplink import FLOOR_BPS, Trace, TraceBank
from controller.records import STATUSES, Decision, Status, SystemState
from controller.scenario import Scenario, ScenarioRange
from controller.timeline import fallback_reserve_s
from envs.twin.mec_queue import neighbour_queue, workload
from envs.twin.tables import TwinCalibration
from envs.twin.twin import Twin

#: Workloads of levels and times that broadcast together.
WORKLOADS = np.vectorize(partial(workload, *neighbour_queue()))
QUIET = TwinCalibration(head_noise_frac=0.0, mec_noise_frac=0.0, overhead_s=0.0, decide_s=0.0)


class TestByHand:
    """A device of 10 frames/s on 1 Mbit/s, where every term can be computed on paper."""

    SCENARIO = Scenario(fps=10.0, deadline_s=0.06, device_slowdown=1.0, mec_slowdown=1.0, frames=20)

    def play(self, rows: list[int], bps: float = 1e6, **changes: float) -> tuple[list[str], np.ndarray, float]:
        """Statuses, latencies in ms and the total reward under constantly perfect answers."""
        bank = TraceBank([Trace("flat", np.zeros(1), np.array([bps]), 1.0)])
        scores = scores_only(np.ones((4, 10), np.float32))
        twin = Twin(device_table(), bank, scores, ScenarioRange(), calibration=QUIET)
        twin.reset(scenarios=[dataclasses.replace(self.SCENARIO, **changes)])
        statuses, latency, reward = [], [], 0.0
        for row in rows:
            _, record = twin.step(np.array([row]))
            statuses.append(STATUSES[record.status[0]].value)
            latency.append(float(record.latency_s[0]) * 1e3)
            reward += float(record.reward[0])
        return statuses, np.array(latency), reward

    def test_a_full_offload_takes_head_uplink_tail_and_round_trip(self) -> None:
        statuses, latency, _ = self.play([2] * 20)
        assert statuses == ["ok"] * 20
        np.testing.assert_allclose(latency, 1 + 10 + 10 + 4)  # head, 1,250 bytes on the wire, round trip, tail

    def test_a_fallback_starts_a_reserve_before_the_deadline(self) -> None:
        statuses, latency, _ = self.play([2] * 3, bps=1e5)
        assert statuses == ["fallback"] * 3
        # 60 ms less 1.15 x 5 ms and 2 ms, then 5 ms; by then no transmission of 100 ms has ended. Until the reply is
        # heard, 115 ms after the first capture, the uplink is not asked again: 40 ms of the good local answer.
        late = 60 - (1.15 * 5 + 2) + 5
        np.testing.assert_allclose(latency, [late, 40, late])

    def test_a_heuristic_reaches_the_score_of_the_optimum(self) -> None:
        # The full offload fits the deadline and costs less energy than the local answer that is as quick:
        # 3.3 W x 1 ms + 1.2 W x 10 ms = 15.3 mJ, against 3.3 W x 5 ms = 16.5 mJ.
        _, _, reward = self.play([2] * 20)
        assert reward == pytest.approx(20 * (1 - 0.05 * 0.0153))
        others = [self.play([row] * 20)[2] for row in (0, 1, 3)]
        assert reward > max(others)

    def test_a_full_queue_drops_its_oldest_and_pays_for_it(self) -> None:
        # 40 ms each, a frame every 11 ms: 0 is answered, 1 makes room, then 2, then 6 and 7 of those that came.
        statuses, latency, reward = self.play([1] * 4, fps=90.0, frames=8)
        assert statuses == ["ok", "ok", "ok", "late"]
        np.testing.assert_allclose(latency, [40, 80 - 200 / 9, 120 - 600 / 9, 160 - 700 / 9])
        assert reward == pytest.approx(3 - 4 * 0.05 * 3.3 * 0.04 - 4 * 0.1)

    def test_payloads_wait_for_those_before_them(self) -> None:
        _, latency, _ = self.play([2] * 4, bps=0.25e6, fps=30.0, deadline_s=0.5)
        np.testing.assert_allclose(latency, 15 + 40 * np.arange(1, 5) - 100 / 3 * np.arange(4))


class TestEpisodes:
    def test_equal_seeds_give_equal_rollouts(self) -> None:
        def rollout(seed: int) -> np.ndarray:
            twin = make_twin(seed=seed)
            twin.reset()
            rng = np.random.default_rng(0)
            rewards = []
            for _ in range(150):
                _, record = twin.step(rng.integers(0, len(twin.costs), twin.batch))
                rewards.append(record.reward)
                twin.reset(record.done)
            return np.array(rewards)

        np.testing.assert_array_equal(rollout(3), rollout(3))
        assert (rollout(3) != rollout(4)).any()

    def test_no_frame_is_lost(self) -> None:
        twin = make_twin(batch=16, range=ScenarioRange(fps=(10.0, 60.0), frames=60))
        twin.reset()
        counted, alive = np.zeros(16, int), np.ones(16, bool)
        while alive.any():
            _, record = twin.step(np.arange(16) % len(twin.costs))
            counted += alive * (1 + record.dropped)
            alive &= ~record.done
        assert (counted == 60).all()

    def test_luck_belongs_to_the_frame_not_to_what_was_decided_before(self) -> None:
        twin = make_twin(batch=1)
        scenario = Scenario(frames=60, fps=2.0, seed=5, device_load_frac=0.3)
        rng = np.random.default_rng(0)
        paces = []
        for _ in range(2):
            twin.reset(scenarios=[scenario])
            rows = np.append(rng.integers(0, len(twin.costs), 20), 7)
            records = [twin.step(rows[i : i + 1])[1] for i in range(21)]
            paces.append(float(records[-1].head_s[0]))
            assert [int(r.frame[0]) for r in records] == list(range(21))
        assert paces[0] == paces[1]

    def test_a_reset_of_some_rows_leaves_the_others_alone(self) -> None:
        twin = make_twin(batch=4)
        twin.reset()
        for _ in range(10):
            before, _ = twin.step(np.zeros(4, int))
        after = twin.reset(np.array([False, True, False, True]))
        for name in ("uplink_bps", "frame_age_s", "deadline_s", "device_slowdown"):
            old, new = getattr(before, name), getattr(after, name)
            np.testing.assert_array_equal(old[[0, 2]], new[[0, 2]])
        assert (before.deadline_s[[1, 3]] != after.deadline_s[[1, 3]]).all()
        assert (after.uplink_sample_count[[1, 3]] == 1).all()

    def test_a_step_changes_no_state_that_was_handed_out(self) -> None:
        twin = make_twin(batch=4)
        state = twin.reset()
        kept = {
            f.name: np.copy(getattr(state, f.name))
            for f in dataclasses.fields(state)
            if getattr(state, f.name) is not None
        }
        for step in range(80):
            _, record = twin.step(np.full(4, step % len(twin.costs)))
            twin.reset(record.done)
        for name, value in kept.items():
            np.testing.assert_array_equal(getattr(state, name), value)

    def test_expected_reward_is_the_mean_of_the_replayed_one(self) -> None:
        costs = table()
        rng = np.random.default_rng(0)
        score = (rng.random((len(costs), 4000)) < costs.accuracy[:, None]).astype(np.float32)
        total = {}
        for reward in ("replayed", "expected"):
            range_ = ScenarioRange(frames=300)
            twin = Twin(costs, traces(), scores_only(score), range_, 64, 1, reward=reward)  # type: ignore[arg-type]
            twin.reset()
            rows = np.random.default_rng(2).integers(0, len(costs), (100, 64))
            total[reward] = np.mean([twin.step(row)[1].utility for row in rows])
        assert total["expected"] == pytest.approx(total["replayed"], abs=0.01)

    def test_what_cannot_be_is_refused_in_one_line(self) -> None:
        costs = table()
        with pytest.raises(UsageError, match="unknown reward 'real'; expected"):
            Twin(costs, traces(), recorded(costs), ScenarioRange(), reward="real")  # type: ignore[arg-type]
        offloads = costs.take(np.flatnonzero(~costs.space.device_only))
        with pytest.raises(UsageError, match="expected at least one, for the fallback"):
            Twin(offloads, traces(), recorded(costs), ScenarioRange())
        with pytest.raises(UsageError, match=r"2 variants; expected \d+"):
            Twin(costs, traces(), scores_only(np.ones((2, 5), np.float32)), ScenarioRange())
        with pytest.raises(UsageError, match="fps 0"):
            make_twin(batch=1).reset(scenarios=[Scenario(fps=0.0)])
        with pytest.raises(UsageError, match="got 1 scenarios; expected one for each of 8 rows"):
            make_twin().reset(scenarios=[Scenario()])
        with pytest.raises(UsageError, match="trace 6 of 6"):
            make_twin(batch=1).reset(scenarios=[Scenario(trace_index=6)])

    @pytest.mark.parametrize("row", [-1, 24])
    def test_rows_that_are_not_in_the_table_and_shapes_that_do_not_fit_are_refused(self, row: int) -> None:
        twin = make_twin(batch=2)
        twin.reset()
        with pytest.raises(IndexError, match="not in the cost table"):
            twin.step(np.array([0, row]))
        with pytest.raises(UsageError, match=r"got rows of shape \(3,\); expected \(2,\)"):
            twin.step(np.zeros(3, int))
        with pytest.raises(UsageError, match=r"got rows of shape \(1,\); expected \(2,\)"):
            twin.reset(np.ones(1, bool))


class TestOracle:
    def test_the_known_latency_is_the_one_that_comes(self) -> None:
        twin = make_twin(batch=32, oracle=True, range=ScenarioRange(fps=(10.0, 30.0), frames=60))
        state = twin.reset()
        rng = np.random.default_rng(0)
        compared = 0
        for _ in range(50):
            rows = rng.integers(0, len(twin.costs), 32)
            assert state.true_latency_s is not None
            promised = state.true_latency_s[np.arange(32), rows]
            state, record = twin.step(rows)
            as_decided = (record.status == STATUSES.index(Status.OK)) & (record.row == rows)
            np.testing.assert_allclose(record.latency_s[as_decided], promised[as_decided], atol=1e-9)
            # What was promised on time and did not come as decided had a fallback due before.
            missed = ~as_decided & (promised <= state.deadline_s * 0.5)
            assert (record.status[missed] != STATUSES.index(Status.LATE)).all()
            compared += int(as_decided.sum())
        assert compared > 500

    def test_a_twin_without_oracle_tells_nobody_the_future(self) -> None:
        assert make_twin().reset().true_latency_s is None


class TestMecQueue:
    @pytest.mark.parametrize("load", [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
    def test_the_mean_wait_is_pollaczek_khinchines(self, load: float) -> None:
        units = np.arange(0.0, STREAM_UNITS, 0.25)
        level = np.full(len(units), round(load * 100))
        mean = WORKLOADS(level, units).mean()
        assert mean == pytest.approx(load / (2 * (1 - load)), rel=0.06)

    def test_the_path_closes_without_a_jump_and_no_load_means_no_wait(self) -> None:
        for level in range(0, LEVELS, 19):
            ends = WORKLOADS(level, np.array([STREAM_UNITS - 1e-6, STREAM_UNITS + 0.0]))
            assert ends[0] == pytest.approx(ends[1], abs=1e-3)
        assert WORKLOADS(0, np.linspace(0, 1e5, 100)).max() == 0

    def test_a_loaded_mec_makes_requests_wait_as_long_as_theory_says(self) -> None:
        costs, load = table(), 0.6
        twin = Twin(costs, traces(outages=False), recorded(costs), ScenarioRange(), 64, calibration=QUIET)
        scenario = Scenario(
            fps=20.0, deadline_s=0.5, mec_load_frac=load, mec_slowdown=5.0, frames=400, device_slowdown=5
        )
        twin.reset(scenarios=[dataclasses.replace(scenario, seed=seed) for seed in range(64)])
        offload = int(np.flatnonzero(costs.space.full_offload)[0])
        waits = []
        for _ in range(300):
            _, record = twin.step(np.full(64, offload))
            waits.append(record.breakdown_s()["queue"])
        levels = np.minimum(np.array([s.mec_load()[:15] for s in twin.scenarios]), 0.95)
        service = costs.neighbour_mec_s * 5.0
        expected = (levels / (2 * (1 - levels))).mean() * service
        assert np.mean(waits) == pytest.approx(expected, rel=0.15)


class TestAgainstTheDevice:
    """The real ``runtime.device.loop.DeviceLoop`` in simulated time, on the same scenario, decisions and trace."""

    @pytest.mark.parametrize("seed", range(8))
    def test_every_frame_ends_alike(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SimCompute, "STEPS", 400)  # so often does the device look up while it computes
        rng = np.random.default_rng(seed)
        rates = np.exp(rng.normal(np.log(rng.choice([3e5, 1e6, 3e6])), 0.6, 20))
        rtt_s, fps, deadline_s = rng.choice([0.004, 0.01]), rng.uniform(5, 25), rng.uniform(0.05, 0.25)
        sim = Simulation(uplink_bps=list(rates), rtt_s=rtt_s, fps=fps, deadline_s=deadline_s, frames=80)
        scores = scores_only(np.ones((4, 1000), np.float32))
        self.compare(sim, scores, rng.integers(0, 4, 80), rtt_s)

    @pytest.mark.parametrize("seed", range(6))
    def test_skipped_frames_show_the_same_answers(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SimCompute, "STEPS", 400)
        rng = np.random.default_rng(seed)
        stream, recorded = stream_costs(), stream_recorded()
        costs = dataclasses.replace(stream, head_s=8 * stream.head_s, payload_std_bytes=np.zeros(len(stream)))
        rates = list(np.exp(rng.normal(np.log(2e6), 0.6, 20)))
        sim = Simulation(
            uplink_bps=rates,
            fps=rng.uniform(8, 25),
            deadline_s=rng.uniform(0.1, 0.3),
            frames=80,
            costs=costs,
            recorded=recorded,
        )
        skipped = self.compare(sim, recorded, rng.integers(0, len(costs), 80), RTT_S)
        assert skipped > 20

    @pytest.mark.parametrize("seed", range(6))
    def test_both_wait_or_fall_back_at_the_last_moment(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a slow device the last moment comes early. Payloads are large, so that pings take no part of the link."""
        monkeypatch.setattr(SimCompute, "STEPS", 2000)
        rng, costs = np.random.default_rng(seed), device_table()
        rates, slowdown = np.exp(rng.normal(np.log(8e7), 0.3, 20)), rng.uniform(25, 30)
        costs = dataclasses.replace(costs, head_s=slowdown * costs.head_s, payload_bytes=1000.0 * costs.payload_bytes)
        sim = Simulation(costs=costs, uplink_bps=list(rates), fps=5.0, deadline_s=0.3, frames=80)
        scores = scores_only(np.ones((4, 1000), np.float32))
        self.compare(sim, scores, rng.choice([FAST, OFFLOAD], 80, p=[0.2, 0.8]), RTT_S)
        last_s = sim.scenario.deadline_s - fallback_reserve_s(costs.fastest_local_s)
        assert {Status.OK, Status.FALLBACK} <= {o.status for o in self.outcomes if o.latency_ms > 1e3 * last_s}

    def test_in_an_outage_both_begin_without_a_sample_and_get_one_after_it(self) -> None:
        rates = [1e3] * 2 + [1e6] * 20  # 1.95 s for a probe
        sim = Simulation(uplink_bps=rates, fps=20.0, frames=100)
        seen: list[SystemState] = []
        while (state := sim.device.next_decision()) is not None:
            seen.append(state)
            sim.device.execute(0)
        sim.device.close()
        scores = scores_only(np.ones((4, 1000), np.float32))
        twin = Twin(sim.costs, sim.bank, scores, ScenarioRange(), calibration=QUIET)
        told = [twin.reset(scenarios=[dataclasses.replace(sim.scenario, rtt_s=RTT_S, mec_slowdown=1.0)])]
        told += [twin.step(np.zeros(1, int))[0] for _ in seen[1:]]
        first, expected = (int(np.argmax([s.uplink_sample_count[0] for s in states])) for states in (told, seen))
        assert first > 0
        assert abs(first - expected) <= 0.25 * 20  # the session looks with every heartbeat
        samples = ("uplink_bps", "uplink_sample_count")
        for name in (*samples, "mec_queue_s", "mec_queue_mean_s", "mec_slowdown"):
            for one, other in ((told[0], seen[0]), (told[first], seen[expected])):
                # The newest: the first probe after an outage may be compared with a ping that the outage held up.
                newest = [np.ravel(getattr(state, name))[0] for state in (one, other)]
                np.testing.assert_allclose(*newest, rtol=0.1, err_msg=name)
        assert told[0].uplink_bps[0, 0] == FLOOR_BPS

    def test_in_an_outage_both_carry_out_the_same_local_row_and_its_interval(self) -> None:
        """The good local answer takes 180 ms of 100, so an offload of one frame becomes a local row of two."""
        stream, recorded = stream_costs(), stream_recorded()
        costs = dataclasses.replace(stream, head_s=18 * stream.head_s, payload_std_bytes=np.zeros(len(stream)))
        rates = [2e6] * 2 + [1e3] * 8 + [2e6] * 20
        sim = Simulation(uplink_bps=rates, fps=10.0, deadline_s=0.4, frames=90, costs=costs, recorded=recorded)
        offload = costs.space.index(Decision("net", 384, 1, 0, "jpeg30", 1))
        outcomes = sim.run(lambda _: offload)
        twin = Twin(costs, sim.bank, recorded, ScenarioRange(), calibration=QUIET)
        twin.reset(scenarios=[dataclasses.replace(sim.scenario, rtt_s=RTT_S, mec_slowdown=1.0)])
        told = [twin.step(np.array([offload]))[1] for _ in range(60)]
        inside = [r for r in told if 45 <= r.frame[0] < 85]
        ran = [o for o in outcomes if 45 <= o.frame < 85 and o.decision is not None]
        assert {STATUSES[r.status[0]] for r in inside} == {o.status for o in ran} == {Status.FALLBACK}
        assert {costs.space.decisions[r.row[0]] for r in inside} == {o.decision for o in ran}
        assert {int(r.reused_frames[0]) for r in inside} == {1}
        assert len(ran) == len(inside) == 20
        assert {o.status for o in outcomes if 45 <= o.frame < 85} == {Status.FALLBACK, Status.SKIPPED}

    @pytest.mark.parametrize("outage", [False, True])
    def test_both_ask_an_idle_uplink_again_what_it_carries(self, outage: bool) -> None:
        rates = [1e5] * 2 + [1e3] * 2 * outage + [4e6] * 20  # in an outage the link goes silent because of the probe
        sim = Simulation(uplink_bps=rates, fps=20.0, frames=200)
        scenario = dataclasses.replace(sim.scenario, rtt_s=RTT_S, mec_slowdown=1.0)
        twin = Twin(
            sim.costs, sim.bank, scores_only(np.ones((4, 1000), np.float32)), ScenarioRange(), calibration=QUIET
        )
        told, states = twin.reset(scenarios=[scenario]), []
        for row in [0 if frame % 50 else 2 for frame in range(200)]:  # an offload every 2.5 s
            seen = sim.device.next_decision()
            assert seen is not None
            states.append((told, seen))
            sim.device.execute(row)
            told = twin.step(np.array([row]))[0]
        sim.device.close()
        told, seen = states[-1]
        assert told.uplink_sample_count[0] > 6
        assert told.uplink_bps[0, 0] == pytest.approx(4e6, rel=0.02)
        assert seen.uplink_bps[0, 0] == pytest.approx(4e6, rel=0.02)
        down = np.array([[not told.link_up[0], not seen.link_up[0]] for told, seen in states]).sum(axis=0)
        assert (down > 0).tolist() == [outage] * 2
        assert abs(down[0] - down[1]) <= 1.0 * 20  # at 1 kbit/s, a ping that is ahead of the probe takes a second
        alike = [pair for pair in states if pair[0].uplink_sample_count[0] == pair[1].uplink_sample_count[0]]
        assert len(alike) >= 195 - 15 * outage
        for told, seen in alike if not outage else []:  # what a probe tells at the edge of an outage is luck
            times = ("uplink_bps", "uplink_age_s", "mec_queue_s", "mec_queue_mean_s", "mec_slowdown")
            for name in (*times, "replied_row", "replied_s", "waiting_row", "waiting_s"):
                np.testing.assert_allclose(getattr(told, name), getattr(seen, name), rtol=0.02, atol=1e-3, err_msg=name)

    def test_both_know_how_long_a_request_waits_that_a_dying_link_loses(self) -> None:
        sim = Simulation(uplink_bps=[4e6, 4e6, 5e3, 5e3, 5e3, *[4e6] * 10], fps=20.0, frames=140)
        twin = Twin(
            sim.costs, sim.bank, scores_only(np.ones((4, 1000), np.float32)), ScenarioRange(), calibration=QUIET
        )
        told = twin.reset(scenarios=[dataclasses.replace(sim.scenario, rtt_s=RTT_S, mec_slowdown=1.0)])
        waits: list[tuple[float, float]] = []
        for number in range(140):
            seen = sim.device.next_decision()
            assert seen is not None
            if told.link_up[0] and seen.link_up[0]:
                assert told.waiting_row[0] == seen.waiting_row[0], number
                waits.append((told.waiting_s[0], seen.waiting_s[0]))
            row = 2 if number % 2 else 0
            sim.device.execute(row)
            told = twin.step(np.array([row]))[0]
        sim.device.close()
        known, measured = zip(*waits, strict=True)
        assert max(known) > 0.5
        assert measured == pytest.approx(known, abs=0.05)

    def compare(self, sim: Simulation, scores: Any, rows: Any, rtt_s: float) -> int:
        """Play the rows on both; how many frames were skipped."""
        outcomes = self.outcomes = sim.run(lambda n: int(rows[n]))
        scenario = dataclasses.replace(sim.scenario, rtt_s=rtt_s, mec_slowdown=1.0)
        twin = Twin(sim.costs, sim.bank, scores, ScenarioRange(), calibration=QUIET)
        state = twin.reset(scenarios=[scenario])
        ended: dict[int, tuple[str, float, float]] = {}
        shown, skipped = 0.0, [o for o in outcomes if o.status is Status.SKIPPED]
        for row, seen in zip(rows, sim.states, strict=False):
            self.compare_samples(state, seen)
            state, r = twin.step(np.array([row]))
            ended[int(r.frame[0])] = (STATUSES[r.status[0]].value, 1e3 * r.latency_s[0], r.utility[0])
            shown += float(r.reused_score[0])
            if r.done[0]:
                break
        assert [o.frame for o in outcomes if o.status.ran] == list(ended)
        assert sum(o.score or 0.0 for o in skipped) == pytest.approx(shown, abs=1e-4)
        assert sum(o.utility or 0.0 for o in skipped) == pytest.approx(shown, abs=1e-4)
        for outcome in outcomes:
            if outcome.frame in ended:
                status, latency_ms, utility = ended[outcome.frame]
                assert outcome.status.value == status
                assert outcome.latency_ms == pytest.approx(latency_ms, abs=0.5)
                assert outcome.utility == pytest.approx(utility, abs=1e-4)
        return len(skipped)

    def compare_samples(self, told: SystemState, seen: SystemState) -> None:
        """Both remember the same samples of the uplink."""
        assert told.uplink_sample_count[0] == seen.uplink_sample_count[0]
        np.testing.assert_allclose(told.uplink_sample_bytes, seen.uplink_sample_bytes)
        np.testing.assert_allclose(told.uplink_sample_age_s, seen.uplink_sample_age_s, atol=1e-3)
