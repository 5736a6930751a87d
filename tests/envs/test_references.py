"""The twin sends the bytes that the device sends when payloads refer to earlier ones, frame by frame."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from support.aged_streams import AGES, AgedSimulation, costs, only, recorded
from support.same_episode import QUIET
from support.simulated import RTT_S

from controller.errors import UsageError
from controller.records import STATUSES, Ints, Outcome, SystemState
from controller.scenario import ScenarioRange
from envs.twin.record import StepRecord
from envs.twin.twin import Twin
from runtime.protocol.wire import RejectReason

FRAMES = 100
COSTS = costs()
LOCAL = only(COSTS, "none")
FREE, CHAINED, SIGNS = only(COSTS, "xor"), only(COSTS, "xorchain"), only(COSTS, "signs")


def played(sim: AgedSimulation, rows: Ints) -> tuple[list[SystemState], list[StepRecord]]:
    """The same rows in the twin: the states before each decision, and the records."""
    twin = Twin(sim.costs, sim.bank, recorded(), ScenarioRange(), calibration=QUIET)
    scenario = dataclasses.replace(sim.scenario, rtt_s=RTT_S, mec_slowdown=sim.mec.slowdown)
    states, records = [twin.reset(scenarios=[scenario])], list[StepRecord]()
    while not records or not records[-1].done[0]:
        state, record = twin.step(np.asarray(rows)[len(records)][None])
        states.append(state)
        records.append(record)
    return states, records


def assert_alike(sim: AgedSimulation, rows: Ints, least_sent: int = 20) -> list[Outcome]:
    """Both send the same bytes of each frame, at the same time, and see references of the same age."""
    outcomes = sim.run(lambda number: int(rows[number]))
    states, records = played(sim, rows)
    ran = [outcome for outcome in outcomes if outcome.status.ran]
    assert [o.frame for o in ran] == [int(r.frame[0]) for r in records]
    for outcome, record in zip(ran, records, strict=True):
        assert outcome.status is STATUSES[int(record.status[0])], outcome.frame
        assert outcome.payload_bytes == record.payload_bytes[0], outcome.frame
        assert outcome.latency_ms == pytest.approx(1e3 * record.latency_s[0], abs=0.5), outcome.frame
    for number, (seen, told) in enumerate(zip(sim.states, states, strict=False)):
        np.testing.assert_array_equal(told.reference_age, seen.reference_age, err_msg=str(number))
    assert sum(outcome.payload_bytes > 0 for outcome in ran) >= least_sent
    return outcomes


def random_sim(seed: int, **options: Any) -> AgedSimulation:
    rng = np.random.default_rng(seed)
    rates = np.exp(rng.normal(np.log(rng.choice([6e4, 2e5, 1e6])), 0.5, 40))
    conditions = {"fps": rng.uniform(5, 25), "deadline_s": rng.uniform(0.1, 0.4), "frames": FRAMES}
    return AgedSimulation(uplink_bps=list(rates), **(conditions | options))


def random_rows(seed: int, choices: list[int]) -> Ints:
    """Runs of the same row, of a random length each."""
    rng, rows = np.random.default_rng(seed), list[int]()
    while len(rows) < FRAMES:
        rows += [int(rng.choice(choices))] * int(rng.integers(1, 8))
    return np.array(rows)


KINDS = {"free": FREE, "chained": CHAINED, "signs": SIGNS, "all": FREE + CHAINED + SIGNS}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_every_payload_has_the_bytes_of_the_device(kind: str, seed: int) -> None:
    assert_alike(random_sim(seed), random_rows(seed, KINDS[kind] + LOCAL[:1]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_that_goes_down_and_comes_back_makes_every_stream_begin_anew(kind: str) -> None:
    rates = [1e6] * 2 + [1e3] * 3 + [1e6] * 20
    sim = AgedSimulation(uplink_bps=rates, fps=10.0, deadline_s=0.3, frames=FRAMES)
    rows = random_rows(1, KINDS[kind])
    outcomes = sim.run(lambda number: int(rows[number]))
    _, records = played(sim, rows)
    assert sim.mec.alone >= 2
    assert sim.mec.count(RejectReason.REFERENCE) == 0
    # When an outage is noticed, and when it is over, differs by up to a heartbeat: until then both send the same.
    bytes_of = {o.frame: o.payload_bytes for o in outcomes}
    told = {int(r.frame[0]): int(r.payload_bytes[0]) for r in records}
    assert all(told[frame] == bytes_of[frame] for frame in told if frame < 20)
    assert sum(told.values()) == pytest.approx(sum(bytes_of.values()), rel=0.1)


@pytest.mark.parametrize("kind", ["free", "chained", "signs"])
def test_the_first_payload_after_an_outage_stands_alone(kind: str) -> None:
    row = KINDS[kind][0]
    alone = costs().payload_bytes_by_age[row, 0]
    sim = AgedSimulation(uplink_bps=[1e6] * 2 + [1e3] * 3 + [1e6] * 20, fps=10.0, deadline_s=0.3, frames=FRAMES)
    outcomes = sim.run(lambda _: row)
    states, records = played(sim, np.full(FRAMES, row))
    for sent in ([o.payload_bytes for o in outcomes], [float(r.payload_bytes[0]) for r in records]):
        assert [size > 0.9 * alone for size in sent if size].count(True) == 2
    ages = np.array([state.reference_age for state in states])[:, 0, COSTS.stream[row]]
    down = np.array([not state.link_up[0] for state in states])
    assert down.any()
    assert (ages[down] == 0).all()


def test_a_request_that_expires_takes_its_reference_with_it() -> None:
    """Later on, when an overloaded MEC was heard last decides whether it is asked: a matter of milliseconds."""
    sim = AgedSimulation(fps=30.0, deadline_s=0.15, frames=24, uplink_bps=[3e6])
    sim.mec.slowdown = 45.0  # 180 ms a frame
    assert_alike(sim, np.full(24, SIGNS[0]), least_sent=10)
    assert sim.mec.count(RejectReason.EXPIRED) >= 3
    assert sim.mec.alone >= 3


def test_recorded_bytes_of_another_bundle_are_refused() -> None:
    found = dataclasses.replace(recorded(), aged_bytes={})
    bank = AgedSimulation().bank
    with pytest.raises(UsageError, match=r"got none of recorded bytes of .*; expected 100 columns"):
        Twin(COSTS, bank, found, ScenarioRange())
    short = {key: sizes[:3] for key, sizes in (recorded().aged_bytes or {}).items()}
    with pytest.raises(UsageError, match=r"got 3 columns of recorded bytes"):
        Twin(COSTS, bank, dataclasses.replace(recorded(), aged_bytes=short), ScenarioRange())


def test_without_streams_nobody_knows_an_age() -> None:
    plain = dataclasses.replace(COSTS, references=None)
    twin = Twin(plain, AgedSimulation().bank, recorded(), ScenarioRange())
    assert twin.reset().reference_age is None
    assert AgedSimulation(costs=plain).device.next_decision().reference_age is None  # type: ignore[union-attr]


def test_an_age_between_recorded_ones_counts_as_the_next_older_one() -> None:
    keep = [0, 1, 3, 8]  # columns: alone, and the ages 1, 3 and 8
    assert COSTS.references is not None
    few = dataclasses.replace(
        COSTS.references,
        ages=np.array(AGES)[np.array(keep[1:]) - 1],
        payload_bytes=COSTS.references.payload_bytes[:, keep],
    )
    found = recorded()
    aged = {key: sizes[keep] for key, sizes in (found.aged_bytes or {}).items()}
    twin = Twin(
        dataclasses.replace(COSTS, references=few),
        AgedSimulation().bank,
        dataclasses.replace(found, aged_bytes=aged),
        ScenarioRange(),
        calibration=QUIET,
    )
    scenario = dataclasses.replace(AgedSimulation(frames=60).scenario, rtt_s=RTT_S)
    twin.reset(scenarios=[scenario])
    row, sizes = FREE[0], aged["net", 28, 0, "xor"]
    sent = [int(twin.step(np.array([row if frame in (0, 2, 7, 30) else 0]))[1].payload_bytes[0]) for frame in range(31)]
    assert [sent[frame] for frame in (0, 2, 7, 30)] == [sizes[0, 0], sizes[2, 2], sizes[3, 7], sizes[3, 30]]


@pytest.mark.parametrize("row", [FREE[0], SIGNS[0]])
def test_an_emulated_device_refers_to_what_was_answered_by_the_end_of_its_head(row: int) -> None:
    """The reply comes some milliseconds after the next head has begun, and long before its end."""
    slowdown = 0.08 / COSTS.head_s[row]  # 80 of 100 ms
    sim = AgedSimulation(fps=10.0, deadline_s=0.4, device_slowdown=slowdown, uplink_bps=[8e4], frames=40)
    outcomes = sim.run(lambda _: row)
    assert [state.reference_age[0, COSTS.stream[row]] for state in sim.states[5:]] == [2] * 35  # type: ignore[index]
    sizes = (recorded().aged_bytes or {})[COSTS.space.decisions[row].payload_key]
    assert [o.payload_bytes for o in outcomes[5:]] == sizes[1, 5:40].tolist()
    _, records = played(sim, np.full(40, row))
    assert [r.payload_bytes[0] for r in records[5:]] == sizes[1, 5:40].tolist()


def test_a_fork_sends_what_its_twin_sends() -> None:
    twin = Twin(COSTS, AgedSimulation().bank, recorded(), ScenarioRange(frames=60), batch=4, seed=1)
    twin.reset()
    rng = np.random.default_rng(0)
    for _ in range(20):
        twin.step(rng.integers(0, len(COSTS), 4))
    fork, state = twin.fork(np.array([2, 2, 0]))
    rows = rng.integers(0, len(COSTS), (15, 4))
    for row in rows:
        before = state.reference_age
        state, forked = fork.step(row[[2, 2, 0]])
        after, record = twin.step(row)
        np.testing.assert_array_equal(forked.request_bytes, record.request_bytes[[2, 2, 0]])
        assert before is not None
        np.testing.assert_array_equal(state.reference_age, after.reference_age[[2, 2, 0]])  # type: ignore[index]
