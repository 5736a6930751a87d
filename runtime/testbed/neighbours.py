"""A load generator: a process that sends a MEC the requests of other devices.

All requests are equal: the full offload whose MEC time is nearest to the cost table's time of a neighbour's request.
They arrive at the times of ``controller.predict.arrivals``, which load the MEC as the scenario's series states for
each second. The twin simulates the same requests.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from threading import Event

import numpy as np

from controller.costs import CostTable
from controller.errors import FailureError, MecpilotError, RemoteProtocolError
from controller.loads import LOAD_STEP_S
from controller.predict.arrivals import arrivals_from, level_of, stream_start
from controller.scenario import Scenario
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.cli.child import follow_parent, say_ready
from runtime.cli.console import log_as
from runtime.inference.streams import encode_alone
from runtime.link.dealer import Dealer
from runtime.profiling.profile import load_costs
from runtime.protocol import wire
from runtime.protocol.device_actions import Actions, LinkChanged, LinkState, Transmit
from runtime.protocol.device_session import DeviceSession

_BUDGET_S = 60.0
#: A running MEC replies within the time of one stage; after this long there is none.
_STALL_S = 60.0
_LOG_EVERY_S = 5.0
_LISTEN_EVERY_S = 0.1


def neighbour_row(costs: CostTable) -> int:
    """Row of the full offload whose MEC time is nearest to the table's time of a neighbour's request."""
    rows = np.flatnonzero(costs.neighbour_rows)
    return int(rows[np.abs(costs.mec_s[rows] - costs.neighbour_mec_s).argmin()])


class Neighbours:
    """Owns a session with the MEC and the times of the requests. ``connect``, ``wait_for``, ``play``, ``close``."""

    def __init__(self, endpoint: str, bundle: Bundle, costs: CostTable, scenario: Scenario) -> None:
        row = neighbour_row(costs)
        self._row, decision = row, costs.space.decisions[row]
        # The twin's time per request: that of this row differs by a few thousandths, which is 0.2 s in a minute.
        self._service_s = costs.neighbour_mec_s * max(scenario.mec_slowdown, 1.0)
        self._load_frac = level_of(scenario.mec_load()) / 100
        self._start = float(stream_start(np.array(scenario.seed)))
        shape = bundle.payload_shape(decision.model, decision.resolution_px, 0)
        image = np.random.default_rng(scenario.seed).integers(0, 256, shape, dtype=np.uint8)
        self._payload = encode_alone(bundle, decision, image)
        self._endpoint, self._dealer = endpoint, Dealer(endpoint)
        self._session = DeviceSession("neighbours", bundle.held)
        self._sent = 0
        self._refusal = ""
        self._log = log_as("neighbours")

    def connect(self) -> None:
        """Wait until the MEC accepts the session; FailureError when it refuses or does not answer."""
        began_s = time.perf_counter()
        log_s = began_s + _LOG_EVERY_S
        while self._session.state is not LinkState.UP:
            self._listen()
            self._dealer.wait(0.05)
            if self._refusal:
                raise FailureError(f"the MEC at {self._endpoint} refused the neighbours: {self._refusal}")
            if (now_s := time.perf_counter()) > began_s + _STALL_S:
                raise FailureError(
                    f"no MEC answers at {self._endpoint} for {_STALL_S:g} s; start one with `mecpilot mec`"
                )
            if now_s > log_s:
                log_s += _LOG_EVERY_S
                self._log(f"waiting for the MEC at {self._endpoint}: {now_s - began_s:.0f} s so far")

    def wait_for(self, begin: Event) -> None:
        """Keep the session alive until the event is set."""
        while not begin.wait(_LISTEN_EVERY_S):
            self._listen()

    def play(self) -> int:
        """Send requests until the series ends; returns the number of requests sent."""
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
        """End the session and close the socket."""
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
        self._sent += 1
        self._dealer.send(wire.encode(wire.infer_request(self._sent, self._row, _BUDGET_S), self._payload))

    def _listen(self) -> None:
        """Handle messages of the session; replies to requests are ignored."""
        now_s = time.perf_counter()
        actions: Actions = []
        for parts in self._dealer.receive():
            try:
                message, buffer = wire.decode(parts)
            except RemoteProtocolError as error:
                actions += self._session.malformed(error, now_s)
            else:
                if not isinstance(message, wire.InferReply):
                    actions += self._session.receive(message, buffer, now_s)
        for action in [*actions, *self._session.tick(now_s)]:
            if isinstance(action, Transmit):
                self._dealer.send(wire.encode(action.message, action.buffer))
            elif isinstance(action, LinkChanged) and action.state is LinkState.REFUSED:
                self._refusal = action.why


def main() -> int:
    """``python -m runtime.testbed.neighbours``: ready when the MEC accepts it.

    A line on stdin starts the load; the end of stdin ends the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m runtime.testbed.neighbours")
    parser.add_argument("--mec", required=True, help="endpoint of the MEC")
    parser.add_argument("--bundle", required=True, help="name of a shipped bundle, or its directory")
    parser.add_argument("--profile", type=Path, help="profile file")
    parser.add_argument("--load", type=float, required=True, help="mean utilisation of the MEC, 0 to 1")
    parser.add_argument("--slowdown", type=float, default=1.0, help="slowdown of the MEC")
    parser.add_argument("--frames", type=int, default=300, help="frames of the device's episode")
    parser.add_argument("--fps", type=float, default=10.0, help="frame rate of the device's episode")
    parser.add_argument("--seed", type=int, default=0, help="seed of the device's episode")
    parser.add_argument("--ready-file", type=Path, help="a line is written here when the MEC has accepted the session")
    options = parser.parse_args()
    scenario = Scenario(
        fps=options.fps,
        frames=options.frames,
        mec_slowdown=options.slowdown,
        mec_load_frac=options.load,
        seed=options.seed,
    )
    begin = follow_parent()
    try:
        bundle = open_bundle(options.bundle)
        costs = load_costs(bundle, options.profile)
        neighbours = Neighbours(options.mec, bundle, costs, scenario)
        neighbours.connect()
    except MecpilotError as error:
        print(f"mecpilot neighbours: {error}", file=sys.stderr)
        return error.exit_code
    say_ready(options.ready_file, "ready")
    neighbours.wait_for(begin)
    neighbours.play()
    neighbours.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
