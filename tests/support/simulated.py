"""Runs a real device loop in simulated time: computing advances the clock, the MEC fails on demand."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from controller.controllers.base import Controller
from controller.costs import CostTable
from controller.errors import RemoteProtocolError
from controller.forecast import Forecaster
from controller.predict.uplink import Trace, TraceBank
from controller.records import Decision, Outcome, SystemState
from controller.regions import Window
from controller.scenario import Scenario
from controller.space import DecisionSpace
from controller.utility import Utility
from runtime.bundles.recorded import Recorded
from runtime.codecs.streams import Sender
from runtime.config.sections.device import LimitsSection
from runtime.config.tree import DEFAULTS
from runtime.device.daemon import drive
from runtime.device.loop import DeviceLoop
from runtime.device.outcomes import Job
from runtime.link.connection import MecConnection
from runtime.link.link import Arrival, Event, Malformed, NoConnection, Wake
from runtime.link.mec_telemetry import MecObservation
from runtime.link.mecs.mecs import Mecs
from runtime.link.mecs.port import MecPort
from runtime.link.senders import Senders
from runtime.link.shaped_link import ShapedLink, Shaper
from runtime.protocol import wire
from runtime.protocol.device_session import DeviceSession
from runtime.shortcuts.base import Shortcut
from runtime.workloads.types import Image

HELD = wire.Held("sim", "d" * 64, "e" * 64)
UPLINK_BPS = 1e6
RTT_S = 0.01
MESSAGE_BYTES = 1250  # on the wire; 10 ms at 1 Mbit/s
PAYLOAD_BYTES = 1116  # of such a message

#: Rows of the table.
FAST, GOOD, OFFLOAD, SPLIT = range(4)


def table() -> CostTable:
    """A fast and a good local row, a full offload, and a split with a slow head."""
    decisions = (
        Decision("net", 28, 0, 1, "none"),
        Decision("net", 28, 1, 4, "none"),
        Decision("net", 28, 1, 0, "raw"),
        Decision("net", 28, 1, 3, "u8"),
    )
    return CostTable(
        DecisionSpace(decisions, np.array([1, 4, 4, 4]), np.arange(4)),
        accuracy=np.array([0.8, 0.9, 0.93, 0.92]),
        head_s=np.array([0.005, 0.04, 0.001, 0.03]),
        payload_bytes=np.array([0.0, 0.0, PAYLOAD_BYTES, PAYLOAD_BYTES]),
        payload_std_bytes=np.zeros(4),
        mec_s=np.array([0.0, 0.0, 0.004, 0.002]),
    )


class SimClock:
    def __init__(self) -> None:
        self.now_s = 100.0  # not 0: nothing may rely on that

    def __call__(self) -> float:
        return self.now_s

    def advance(self, duration_s: float) -> None:
        self.now_s += duration_s

    def sleep(self, until_s: float) -> None:
        assert until_s < math.inf, "the device waits for something that will never happen"
        self.now_s = max(self.now_s, until_s)


@dataclass(frozen=True)
class SimHead:
    payload: bytes
    outputs: Any
    early_exit: int | None = None


class SimCompute:
    """Advances the clock by the table's times, in five steps like stages, with a pause before each."""

    STEPS = 5
    samples = 1000

    def __init__(self, costs: CostTable, clock: SimClock, recorded: Recorded | None = None) -> None:
        self._costs, self._clock = costs, clock
        self._recorded = recorded  # None: every answer is right
        if recorded is not None:
            self.samples = recorded.score.shape[1]
        self.ran: list[tuple[float, int, int]] = []  # start, sample, row

    def sender(self, decision: Decision) -> Sender | None:
        """No codec of the table has references; ``support.streams`` has some that do."""
        return None

    def head(
        self,
        source_index: int,
        decision: Decision,
        pause: Callable[[], None],
        encode_as: Callable[[Any], bytes] | None = None,
        window: Window | None = None,
    ) -> SimHead:
        row = path = self._costs.space.index(decision)
        if self._costs.gates is not None and self._recorded is not None:
            path = int(self._costs.gates.taken(self._recorded.confidence[:, source_index : source_index + 1])[row, 0])
        self.ran.append((self._clock(), source_index, row))
        self._take(float(self._costs.paths.head_s[path]), pause)
        if path != row:
            early = self._costs.paths.space.decisions[path]
            return SimHead(b"", bytes([path] * 4), early.exit_branch)
        if self._costs.space.device_only[row]:
            return SimHead(b"", bytes([row] * 4))
        payload_bytes = self._costs.payload_bytes[row]
        if self._recorded is not None and self._recorded.payload_bytes is not None:
            payload_bytes = self._recorded.payload_bytes[decision.payload_key][source_index]
        return SimHead(bytes(int(payload_bytes)), None)

    def _take(self, head_s: float, pause: Callable[[], None]) -> None:
        for _ in range(self.STEPS):
            pause()
            self._clock.advance(head_s / self.STEPS)

    def picture(self, source_index: int) -> Image:
        """A picture whose brightness is the number of the sample."""
        return np.full((2, 2, 3), source_index % 256, np.uint8)

    def row(self, decision: Decision) -> int:
        return self._costs.space.index(decision.ungated)

    def output_shape(self, decision: Decision) -> tuple[int, ...]:
        return (1, 1)

    def judge(self, source_index: int, outputs: Any, decision: Decision) -> tuple[Any, Any, float]:
        if self._recorded is None:
            return outputs[0], source_index, 1.0
        space = self._costs.paths.space  # of paths with the same decision, all have the same variant
        prediction = self._judged = [int(space.variant[space.index(decision)]), source_index]
        return prediction, source_index, self.score(prediction, source_index)

    def score(self, prediction: Any, truth: Any) -> float:
        if self._recorded is None:
            return 1.0
        variant, sample = prediction
        return float(self._recorded.lagged_score((truth - sample) % self.samples)[variant, sample])

    def confidence(self, outputs: Any, decision: Decision) -> float:
        """Of the answer that was just judged: the outputs do not say which sample it is of."""
        if self._recorded is None:
            return math.nan
        variant, sample = self._judged
        return float(self._recorded.confidence[variant, sample])

    def truth(self, source_index: int) -> Any:
        return source_index

    def source_index(self, index: int) -> int:
        return index


#: What a MEC says (undecodable bytes if no message; None is nothing), and when.
Answer = tuple[tuple[wire.AnyMessage, bytes] | bytes | None, float]


@dataclass
class SimMec:
    """A simulated MEC as the inner link of a ShapedLink: answers in order of arrival. Every fault is a switch."""

    clock: SimClock
    costs: CostTable
    reachable: bool = True  # False: the connection is refused
    hung: bool = False  # accepts connections and stays silent
    forgotten: bool = False  # the connection is dead without any error; a new one works
    connections: int = 1
    held: bool = False  # the link keeps all messages and delivers them later
    bundle: wire.Held = HELD
    slowdown: float = 1.0
    reject: wire.RejectReason | None = None
    reject_queue_us: int = 0
    spoil: Callable[[wire.InferReply], tuple[wire.AnyMessage, bytes] | bytes] | None = None
    instance: int = 0
    requests: list[wire.InferRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free_s = -math.inf
        self._events: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._kept: list[wire.AnyMessage] = []
        self._plan: list[tuple[float, Callable[[SimMec], None]]] = []

    def plan(self, at_s: float, change: Callable[[SimMec], None]) -> None:
        """Call ``change`` at a point in time."""
        self._plan = sorted([*self._plan, (at_s, change)], key=lambda planned: planned[0])

    def die(self) -> None:
        """``kill -9``: unsent replies are lost."""
        self.reachable, self._events = False, []

    def restart(self) -> None:
        self.reachable, self.instance, self._free_s = True, self.instance + 1, -math.inf

    def release(self) -> None:
        """The link is not held any more: the kept messages arrive now."""
        self.held, kept, self._kept = False, self._kept, []
        for message in kept:
            self._deliver(message)

    # The inner link that the ShapedLink wraps.

    def start(self, origin_s: float) -> None: ...

    def send(self, message: wire.Sendable, buffer: wire.Buffer) -> None:
        self._run_plan()
        if not self.reachable:
            self._later(self.clock(), NoConnection())
        elif self.held:
            self._kept.append(message)
        elif not (self.hung or self.forgotten):
            self._deliver(message)

    def _deliver(self, message: wire.Sendable) -> None:
        answer, at_s = self._answer(message)
        if isinstance(answer, bytes):
            self._later(at_s, Malformed(RemoteProtocolError("got garbage; expected a message")))
        elif answer is not None:
            self._later(at_s, Arrival(answer[0], answer[1], at_s))

    def _answer(self, message: wire.Sendable) -> Answer:
        now_s = self.clock()
        match message:
            case wire.Hello():
                return (wire.Welcome(f"mec-{self.instance}", self.bundle, self.slowdown), b""), now_s
            case wire.Ping():
                return (wire.Pong(message.ping_id), b""), now_s
            case wire.InferRequest():
                return self._infer(message, now_s)
        return None, now_s

    def _infer(self, r: wire.InferRequest, now_s: float) -> Answer:
        self.requests.append(r)
        if self.reject is not None:
            return (wire.Reject(r.request_id, self.reject, "no", self.reject_queue_us), b""), now_s
        began_s = max(now_s, self._free_s)
        queue_us = wire.whole_us(began_s - now_s)
        if queue_us / 1e3 > r.remaining_budget_ms:
            return (wire.Reject(r.request_id, wire.RejectReason.EXPIRED, "too late", queue_us), b""), began_s
        self._free_s = began_s + float(self.costs.mec_s[r.row]) * self.slowdown
        reply = wire.InferReply(r.request_id, queue_us, wire.whole_us(self._free_s - began_s))
        answer = self.spoil(reply) if self.spoil else (reply, bytes([r.row] * 4))
        return answer, self._free_s

    def _later(self, at_s: float, event: Event) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), event))

    def _run_plan(self) -> None:
        while self._plan and self._plan[0][0] <= self.clock():
            self._plan.pop(0)[1](self)

    def receive(self) -> list[Event]:
        self._run_plan()
        events: list[Event] = []
        while not self.held and self._events and self._events[0][0] <= self.clock():
            events.append(heapq.heappop(self._events)[2])
        return events

    def connect(self) -> None:
        """Replace the connection; messages on their way over the old one are lost."""
        self.connections += 1
        self.disconnect()
        self.forgotten = False

    def disconnect(self) -> None:
        self._events.clear()
        self._kept.clear()
        self.forgotten = True

    def tcp_state(self) -> None:
        pass

    def trouble(self) -> str:
        return "" if self.reachable else "connection refused"

    def wait(self, until_s: float) -> None:
        self.clock.sleep(min(until_s, self.wake().at_s))

    def wake(self) -> Wake:
        pending = [] if self.held else self._events[:1]
        at_s = [math.inf, *(event[0] for event in pending), *(planned[0] for planned in self._plan[:1])]
        return Wake((), min(at_s))

    def close(self) -> None: ...


class Simulation:
    """A device loop with a simulated clock, computation, uplink and MEC, or several (``mecs``) behind one uplink."""

    compute_type: type[SimCompute] = SimCompute
    mec_type: type[SimMec] = SimMec

    def __init__(
        self,
        *,
        uplink_bps: list[float] | None = None,
        rtt_s: float = RTT_S,
        closed_loop: bool = False,
        limits: LimitsSection = DEFAULTS.limits,
        stretch: float = 1.0,
        costs: CostTable | None = None,
        recorded: Recorded | None = None,
        shortcuts: Sequence[Shortcut] = (),
        forecaster: Forecaster | None = None,
        mecs: int = 1,
        breaker: bool = False,  # also with one MEC
        **scenario: Any,
    ) -> None:
        self.costs = table() if costs is None else costs
        self.clock = SimClock()
        self.log_lines: list[str] = []
        self.recorded = recorded
        self.compute = self.compute_type(self.costs, self.clock, recorded)
        self.mecs = [self.mec_type(self.clock, self.costs) for _ in range(mecs)]
        self.mec = self.mecs[0]
        rates = np.array(uplink_bps or [UPLINK_BPS])
        self.bank = TraceBank([Trace("sim", np.arange(len(rates), dtype=float), rates, 1.0)])
        self.scenario = Scenario(**({"frames": 20, "device_slowdown": 1.0} | scenario))
        self.limits = limits
        shaper = Shaper(self.bank)
        self.connections: list[MecConnection[Job]] = [
            MecConnection(
                f"tcp://sim:{number}",
                ShapedLink(mec, shaper, rtt_s, self.clock),
                DeviceSession("sim", HELD),
                self.costs,
                max_in_flight=self.limits.max_in_flight,
                clock=self.clock,
                log=self.log_lines.append,
                senders=Senders(self.compute.sender),
            )
            for number, mec in enumerate(self.mecs, 1)
        ]
        self.connection = self.connections[0]
        port: MecPort[Job] = self._several() if (mecs > 1 or breaker) else self.connection
        self.device = DeviceLoop(
            self.compute,
            port,
            self.costs,
            self.scenario,
            Utility(),
            queue_limit=self.limits.queue_limit,
            closed_loop=closed_loop,
            shortcuts=shortcuts,
            log=self.log_lines.append,
            clock=self.clock,
            forecaster=forecaster,
        )
        self.states: list[SystemState] = []  # of the decisions in ``run``

    def _several(self) -> Mecs[Job]:
        named = [(f"tcp://sim:{number}", connection) for number, connection in enumerate(self.connections, 1)]
        sleep = self.clock.sleep
        return Mecs(named, clock=self.clock, sleep=lambda _, until_s: sleep(until_s), log=self.log_lines.append)

    @property
    def seen(self) -> MecObservation:
        """The device's observation of its MEC."""
        return self.connection.observe(self.clock())

    def run(self, decide: Callable[[int], int], between: Callable[[int], None] = lambda _: None) -> list[Outcome]:
        """Run all frames with the row ``decide(n)`` for decision n. Returns the outcomes by frame.

        ``between(n)`` is called before decision n and may cause faults.
        """
        outcomes: list[Outcome] = []
        for number in itertools.count():
            state = self.device.next_decision()
            outcomes += self.device.take_outcomes()
            if state is None:
                break
            self.states.append(state)
            between(number)
            self.device.execute(decide(number))
            outcomes += self.device.take_outcomes()
        self.device.close()
        outcomes += self.device.take_outcomes()
        assert sorted(outcome.frame for outcome in outcomes) == list(range(len(outcomes)))
        return sorted(outcomes, key=lambda outcome: outcome.frame)

    def drive(self, controller: Controller) -> list[Outcome]:
        """Run all frames with a controller, as the daemon does. Returns the outcomes by frame."""
        outcomes = list(drive(self.device, controller, lambda _: None))
        self.device.close()
        outcomes += self.device.take_outcomes()
        return sorted(outcomes, key=lambda outcome: outcome.frame)
