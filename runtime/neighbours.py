"""Who else uses the MEC? A process that plays the requests of other devices, for real.

One kind of request, the full offload of the heaviest model whose time is nearest to what the cost table says of
neighbours, at the times of ``controller.neighbours``: as many as load the MEC as the scenario's series says, second by
second. The twin's neighbours are the same requests in numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import select
import sys
import time
from pathlib import Path

import numpy as np

from controller.costs import CostTable
from controller.errors import FailureError, MecpilotError, RemoteProtocolError
from controller.neighbours import arrivals_from, level_of, stream_start
from controller.records import Decision
from controller.scenario import LOAD_STEP_S, Scenario
from runtime import wire
from runtime.bundle import Bundle, open_bundle
from runtime.codecs import encode
from runtime.device_session import DeviceSession, LinkState, Transmit
from runtime.processes import say_ready
from runtime.profile import load_costs
from runtime.transport import Dealer

_READY_WAIT_S = 10.0
_BUDGET_MS = 60_000.0
_LISTEN_EVERY_S = 0.1


def neighbour_row(costs: CostTable) -> int:
    """The full offload that costs the MEC what the table says of a neighbour's request."""
    rows = np.flatnonzero(costs.space.full_offload)
    return int(rows[np.abs(costs.mec_s[rows] - costs.neighbour_mec_s).argmin()])


class Neighbours:
    """Owns a session with the MEC and when the next request is due."""

    def __init__(self, endpoint: str, bundle: Bundle, costs: CostTable, scenario: Scenario) -> None:
        row = neighbour_row(costs)
        self._decision = costs.space.decisions[row]
        # The twin's unit of time, not this row's own, which differs by a few thousandths: in a minute that is 0.2 s.
        self._service_s = costs.neighbour_mec_s * max(scenario.mec_slowdown, 1.0)
        self._load_frac = level_of(scenario.mec_load()) / 100
        self._start = float(stream_start(np.array(scenario.seed)))
        self._shape = bundle.payload_shape(self._decision.model, self._decision.resolution_px, 0)
        image = np.random.default_rng(scenario.seed).integers(0, 256, self._shape, dtype=np.uint8)
        self._payload = encode(self._decision.payload, image)
        self._dealer = Dealer(endpoint)
        self._session = DeviceSession("neighbours", bundle.digest)
        self._sent = 0

    def connect(self) -> None:
        """Be welcomed by the MEC, or fail."""
        limit_s = time.perf_counter() + _READY_WAIT_S
        while self._session.state is not LinkState.UP:
            self._listen()
            self._dealer.wait(0.05)
            if time.perf_counter() > limit_s or self._session.state is LinkState.REFUSED:
                raise FailureError("the neighbours were not welcomed by the MEC; is it running, with the same bundle?")

    def wait_for(self, descriptor: int) -> None:
        """Keep the session until something comes through a pipe, or its other end is closed."""
        while not select.select([descriptor], [], [], _LISTEN_EVERY_S)[0]:
            self._listen()

    def play(self) -> int:
        """Send until the series has ended; how many requests were sent."""
        start_s = time.perf_counter()
        for units, needed_load in arrivals_from(self._start):
            second = int(units * self._service_s / LOAD_STEP_S)
            if second >= len(self._load_frac):
                break
            if needed_load < self._load_frac[second]:
                self._listen_until(start_s + units * self._service_s)
                self._send()
        self._listen_until(start_s + len(self._load_frac) * LOAD_STEP_S)
        return self._sent

    def close(self) -> None:
        for action in self._session.close():
            if isinstance(action, Transmit):
                self._dealer.send(wire.encode(action.message))
        self._dealer.close()

    def _listen_until(self, due_s: float) -> None:
        self._listen()
        while (left_s := due_s - time.perf_counter()) > 0:
            self._dealer.wait(left_s)
            self._listen()

    def _send(self) -> None:
        if self._session.state is not LinkState.UP:
            return
        d: Decision = self._decision
        self._sent += 1
        request = wire.InferRequest(
            self._sent,
            self._sent,
            d.model,
            d.resolution_px,
            d.exit_branch,
            0,
            d.payload,
            self._shape,
            _BUDGET_MS,
        )
        self._dealer.send(wire.encode(request, self._payload))

    def _listen(self) -> None:
        """Keep the session; answers are not wanted."""
        now_s = time.perf_counter()
        actions = []
        for parts in self._dealer.receive():
            with contextlib.suppress(RemoteProtocolError):
                message, buffer = wire.decode(parts)
                if not isinstance(message, wire.InferReply):
                    actions += self._session.receive(message, buffer, now_s)
        for action in [*actions, *self._session.tick(now_s)]:
            if isinstance(action, Transmit):
                self._dealer.send(wire.encode(action.message, action.buffer))


def main() -> int:
    """``python -m runtime.neighbours``: ready when the MEC has welcomed it, begins when its stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m runtime.neighbours")
    parser.add_argument("--mec", required=True, help="endpoint of the MEC")
    parser.add_argument("--bundle", required=True, help="workload or directory")
    parser.add_argument("--profile", type=Path, help="profile file")
    parser.add_argument("--load", type=float, required=True, help="mean utilisation, 0 to 1")
    parser.add_argument("--slowdown", type=float, default=1.0, help="that of the MEC")
    parser.add_argument("--frames", type=int, default=300, help="of the device's episode")
    parser.add_argument("--fps", type=float, default=10.0, help="of the device's episode")
    parser.add_argument("--seed", type=int, default=0, help="of the device's episode")
    parser.add_argument("--ready-file", type=Path, help="gets a line when requests begin")
    options = parser.parse_args()
    scenario = Scenario(
        fps=options.fps,
        frames=options.frames,
        mec_slowdown=options.slowdown,
        mec_load_frac=options.load,
        seed=options.seed,
    )
    try:
        bundle = open_bundle(options.bundle)
        costs = load_costs(bundle, options.profile)
        others = Neighbours(options.mec, bundle, costs, scenario)
        others.connect()
    except MecpilotError as error:
        print(f"mecpilot neighbours: {error}", file=sys.stderr)
        return error.exit_code
    say_ready(options.ready_file, "ready")
    others.wait_for(sys.stdin.fileno())
    others.play()
    others.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
