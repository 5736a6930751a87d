"""A shortcut written outside of the source: one rule on the device and in the twin. Copy this file for a new one."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from support.same_episode import assert_same
from support.simulated import SimClock, Simulation
from support.stream import SAMPLES, stream_costs, stream_recorded

import mecpilot
from controller.costs import CostTable
from controller.errors import UsageError
from controller.metrics import Frames, overall
from controller.records import Decision, Outcome, Status
from controller.reuse import Answers, PastAnswer, Reuse
from controller.utility import Utility
from envs.twin.shortcut import NOTHING, Asked, Verdict
from runtime.observe.record_log import OUTCOMES, line_of
from runtime.observe.summary import RunSummary
from runtime.shortcuts.base import Context, Shortcut
from runtime.shortcuts.chain import Chain
from runtime.shortcuts.stride import Stride
from runtime.sources.frames import Frame

EXTENDING = Path(__file__).parents[2] / "docs" / "extending.md"
FPS = 10.0


def shows_nothing_new(frame: Any) -> Any:
    """The rule that both halves share, on a number or on (B,): every third frame is the same as the one before it.

    A real rule belongs into controller/reuse.py and takes what was measured.
    """
    return frame % 3 == 2


class ToyFilter(Shortcut):
    """The half that runs on the device; looking at a picture takes it ``takes_s`` of a fast device."""

    needs_picture = True

    def __init__(self, takes_s: float = 0.0) -> None:
        self.clock: SimClock | None = None
        self._takes_s = takes_s
        self.asked: list[int] = []
        self.heard: list[int] = []

    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        self.asked.append(frame.index)
        assert context.picture()[0, 0, 0] == frame.source_index
        if self.clock is not None:
            self.clock.advance(self._takes_s)
        newest = context.answers.newest_at(context.now_s)
        return Reuse(Status.FILTERED, newest) if newest and shows_nothing_new(frame.index) else None

    def answered(self, answer: PastAnswer) -> None:
        self.heard.append(answer.frame)


class BlindFilter(ToyFilter):
    """The same without a look at the picture: it answers at the capture."""

    needs_picture = False


class ToyTable:
    """The half that the twin replays. A real one has a verdict for each sample and age."""

    reason = Status.FILTERED
    memory = NOTHING
    needs_newest = True

    def __init__(self, look_s: float = 0.0) -> None:
        self.look_s = look_s

    def verdict(self, asked: Asked, memory: Any) -> Verdict:
        return Verdict(np.asarray(shows_nothing_new(asked.frame)))


def slow_stream(times: float) -> CostTable:
    """The stream's table on a slower device, with payloads as recorded."""
    stream = stream_costs()
    return dataclasses.replace(stream, head_s=times * stream.head_s, payload_std_bytes=np.zeros(len(stream)))


def local_row(stride: int = 1) -> int:
    return stream_costs().space.index(Decision("net", 384, 1, 4, "none", stride))


def simulation(shortcut: Shortcut, times: float = 1.0, **options: Any) -> Simulation:
    defaults: dict[str, Any] = {"frames": 12, "fps": FPS, "deadline_s": 0.3}
    return Simulation(
        costs=slow_stream(times), recorded=stream_recorded(), shortcuts=[shortcut], **(defaults | options)
    )


class BrokenFilter(ToyFilter):
    """Raises an error wherever it is called."""

    def try_answer(self, frame: Frame, context: Context) -> Reuse | None:
        raise ValueError(f"frame {frame.index}")

    def decided(self, frame: int, stride: int) -> None:
        raise KeyError(frame)

    def answered(self, answer: PastAnswer) -> None:
        raise KeyError(answer.frame)


@pytest.mark.parametrize("needs_picture", [True, False])
def test_errors_of_a_shortcut_cost_no_frame_and_are_logged_once_per_kind(needs_picture: bool) -> None:
    broken = BrokenFilter()
    broken.needs_picture = needs_picture
    sim = simulation(broken)
    outcomes = sim.run(lambda _: local_row())
    assert [o.status for o in outcomes] == [Status.OK] * 12
    failed = [line for line in sim.log_lines if line.startswith("shortcut BrokenFilter failed: ")]
    assert sorted(line.split(": ")[1] for line in failed) == ["KeyError", "ValueError"]


def test_frame_strides_go_on_beside_a_shortcut_that_fails() -> None:
    outcomes = simulation(BrokenFilter()).run(lambda _: local_row(stride=2))
    assert [o.status for o in outcomes] == [Status.OK, Status.SKIPPED] * 6


class TestOnTheDevice:
    def outcomes(self) -> tuple[Simulation, list[Outcome]]:
        sim = simulation(ToyFilter())
        return sim, sim.run(lambda _: local_row())

    def test_a_frame_that_it_answers_is_not_run_and_has_the_answer_before_it(self) -> None:
        sim, outcomes = self.outcomes()
        assert [o.status.value for o in outcomes] == ["ok", "ok", "filtered"] * 4
        assert len(sim.compute.ran) == 8
        frame, before = outcomes[5], outcomes[4]
        assert frame.prediction == before.prediction
        assert (frame.reused_frame, before.reused_frame) == (4, None)
        assert (frame.latency_ms, frame.energy_j, frame.payload_bytes, frame.decision) == (0.0, 0.0, 0, None)
        aged = float(stream_recorded().lagged_score(1)[1, 4])
        assert (frame.score, frame.utility) == (pytest.approx(aged), pytest.approx(aged, abs=1e-6))

    def test_metrics_summary_and_log_know_it(self) -> None:
        _, outcomes = self.outcomes()
        found = overall(Frames.from_outcomes(outcomes, 1 / FPS))
        assert (found["reused_frac"], found["filtered_frac"], found["skipped_frac"]) == (
            pytest.approx(1 / 3),
            pytest.approx(1 / 3),
            0.0,
        )
        assert (found["slo_attainment"], found["dropped_frac"]) == (1.0, 0.0)
        summary = RunSummary(interval_s=1 / FPS)
        for outcome in outcomes:
            summary.add(outcome)
        figures = summary.figures()
        assert figures["status"] == {"ok": 8, "filtered": 4}
        assert figures["filtered_frac"] == found["filtered_frac"]
        console = Console(width=120)
        with console.capture() as shown:
            console.print(summary.table("toy"))
        assert "66.7 % in time, 33.3 % filtered, 0.0 % skipped, 0.0 % late" in shown.get()
        line = json.loads(line_of(outcomes[2], OUTCOMES))
        assert (line["status"], line["reused_frame"], line["decision"]) == ("filtered", 1, None)

    def test_it_hears_of_every_answer_and_is_asked_only_about_frames_that_would_be_decided(self) -> None:
        toy = ToyFilter()
        outcomes = simulation(toy).run(lambda _: local_row(stride=2))
        assert toy.heard == [o.frame for o in outcomes if o.status.ran]
        assert toy.asked == [o.frame for o in outcomes if o.status is not Status.SKIPPED]
        assert [o.status.value for o in outcomes[:6]] == ["ok", "skipped", "filtered", "ok", "skipped", "filtered"]

    def test_the_time_that_it_takes_is_device_time(self) -> None:
        """1 ms of a fast device is 20 ms of one that is 20 times slower, for each frame that it looks at."""
        toy = ToyFilter(takes_s=0.001)
        sim = simulation(toy, device_slowdown=20.0)
        toy.clock = sim.clock
        fast = stream_costs().space.index(Decision("net", 384, 0, 2, "none", 1))
        outcomes = sim.run(lambda _: fast)
        assert [o.status.value for o in outcomes[:3]] == ["ok", "ok", "filtered"]
        assert outcomes[2].energy_j == pytest.approx(Utility().energy_j(0.020, 0.0), abs=1e-6)
        assert outcomes[1].breakdown_ms.wait == pytest.approx(20.0)
        assert outcomes[1].energy_j > Utility().energy_j(0.020, 0.0)

    def test_a_frame_that_is_answered_at_its_capture_takes_no_place_in_the_queue(self) -> None:
        """A head takes 250 ms, and frames come every 100 ms."""
        statuses = {}
        for toy in (ToyFilter(), BlindFilter()):
            outcomes = simulation(toy, times=25.0, deadline_s=2.0, frames=30).run(lambda _: local_row())
            statuses[type(toy)] = [o.status for o in outcomes]
        assert statuses[BlindFilter].count(Status.FILTERED) == 10  # all of them
        assert statuses[BlindFilter].count(Status.DROPPED) < statuses[ToyFilter].count(Status.DROPPED)

    def test_strides_go_on_where_a_filter_answered_the_frame_before(self) -> None:
        outcomes = simulation(BlindFilter(), closed_loop=True).run(lambda _: local_row(stride=2))
        ran = [o.frame for o in outcomes if o.status.ran]
        assert ran == [0, 3, 6, 9]


class TestChain:
    FRAME = Frame(index=7, source_index=7, captured_s=1.0)

    def chain(self, *members: Shortcut) -> Chain:
        return Chain(members, 0.1, lambda index: np.full((1, 1, 3), index, np.uint8))

    def test_the_first_that_answers_counts(self) -> None:
        stride, toy = Stride(), BlindFilter()
        chain = self.chain(stride, toy)
        chain.answered(PastAnswer(5, 0.9, "five"))
        chain.decided(5, 4)
        reuse = chain.at_capture(dataclasses.replace(self.FRAME, index=8), 1.0)
        assert reuse == Reuse(Status.SKIPPED, PastAnswer(5, 0.9, "five"))
        assert toy.asked == []
        chain.decided(5, 1)
        reuse = chain.at_capture(dataclasses.replace(self.FRAME, index=8, source_index=8), 1.0)
        assert reuse is not None
        assert reuse.reason is Status.FILTERED

    def test_an_answer_that_would_stand_only_after_the_deadline_is_not_taken(self) -> None:
        for out_s, stands in ((1.05, True), (1.15, False)):
            chain = self.chain(ToyFilter())
            chain.answered(PastAnswer(7, out_s, "late"))
            frame = Frame(index=8, source_index=8, captured_s=1.0)
            assert (chain.before_decision(frame, 2.0) is not None) == stands

    def test_nobody_is_asked_for_a_picture_that_nobody_needs(self) -> None:
        assert not self.chain(Stride()).needs_pictures
        assert Stride().try_answer(self.FRAME, Context(1.0, Answers(), lambda: pytest.fail("not needed"))) is None


class TestInTheTwin:
    @pytest.mark.parametrize("seed", range(6))
    def test_every_frame_ends_as_on_the_device(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Random decisions over a random uplink, strides included; frames wait, are dropped and fall back. A look at
        a picture takes 4 ms of a device that is 8 times slower than the profiled one."""
        monkeypatch.setattr("runtime.device.emulation.HEAD_NOISE_FRAC", 0.0)
        rng = np.random.default_rng(seed)
        toy = ToyFilter(takes_s=0.0005)
        sim = simulation(
            toy,
            device_slowdown=8.0,
            uplink_bps=list(np.exp(rng.normal(np.log(2e6), 0.6, 20))),
            fps=rng.uniform(8, 25),
            deadline_s=rng.uniform(0.1, 0.3),
            frames=80,
        )
        toy.clock = sim.clock
        found = assert_same(sim, rng.integers(0, len(sim.costs), 80), [ToyTable(look_s=0.0005)])
        assert {Status.SKIPPED, Status.FILTERED} <= {outcome.status for outcome in found}


def test_make_env_and_compare_pass_shortcuts_to_their_twin() -> None:
    scenario = {"frames": 9, "fps": 10, "mec_load_frac": 0.0}
    options: dict[str, Any] = {"scenario": scenario, "profile": "shipped", "shortcuts": [ToyTable()]}
    env = mecpilot.make_env("campus", **options)
    env.reset(seed=0)
    space = env.backend.costs.space
    local = int(np.flatnonzero(space.device_only & (space.frame_stride == 1))[0])
    assert [env.step(local)[4]["reused"] for _ in range(6)] == [0, 1, 0, 1, 0, 1]
    (found,) = mecpilot.compare("campus", ["device-only"], **options)["controllers"].values()
    assert found["filtered_frac"]["mean"] > 0.0
    with pytest.raises(UsageError, match="got shortcuts with live=True"):
        mecpilot.make_env("campus", live=True, **options)
    with pytest.raises(
        UsageError, match="got shortcuts for garments, whose bundle has no scores of older answers; exp"
    ):
        mecpilot.make_env("garments", **options)


def test_a_shortcut_that_cannot_answer_is_no_shortcut() -> None:
    class Forgetful(Shortcut):
        pass

    with pytest.raises(TypeError, match="try_answer"):
        Forgetful()  # type: ignore[abstract]


def documented() -> dict[str, Any]:
    """What the code of docs/extending.md defines, as it stands there."""
    section = EXTENDING.read_text().split("## Add an input filter")[1].split("\n## ")[0]
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, names)
    return names


class TestTheExampleOfTheDocumentation:
    def test_the_filter_reuses_an_answer_while_the_picture_is_much_the_same(self) -> None:
        """Each picture is brighter by 1 than the one before, and differences up to 1.5 count as nothing new."""
        outcomes = simulation(documented()["InputFilter"]()).run(lambda _: local_row())
        assert [o.status.value for o in outcomes] == ["ok", "filtered"] * 6
        assert [o.reused_frame for o in outcomes if o.status.reused] == [o.frame for o in outcomes if o.status.ran]

    def test_no_answer_stands_for_ever(self) -> None:
        """With a limit that finds all pictures alike."""
        page = documented()
        page["shows_nothing_new"].__defaults__ = (255.0,)
        outcomes = simulation(page["InputFilter"]()).run(lambda _: local_row())
        assert [o.status.value for o in outcomes] == ["ok", *["filtered"] * 10, "ok"]

    def test_grey_and_small_pictures_are_compared_in_full(self) -> None:
        small_copy = documented()["small_copy"]
        assert small_copy(np.zeros((28, 28), np.uint8)).shape == (28, 28)
        assert small_copy(np.zeros((576, 768, 3), np.uint8)).shape == (36, 48, 3)

    @pytest.mark.parametrize("seed", range(3))
    def test_its_table_says_the_same(self, seed: int) -> None:
        page, rng = documented(), np.random.default_rng(seed)
        table = page["FilterTable"]([np.full((2, 2, 3), index, np.uint8) for index in range(SAMPLES)])
        sim = simulation(page["InputFilter"](), times=8.0, uplink_bps=[2e6, 5e5], fps=rng.uniform(8, 25), frames=80)
        found = assert_same(sim, rng.integers(0, len(sim.costs), 80), [table])
        assert Status.FILTERED in {outcome.status for outcome in found}
