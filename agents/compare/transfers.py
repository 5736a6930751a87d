"""Trains the predictor of transfer times (``controller.predict.transfer``) on transfers of the twin.

A mix of controllers plays the training traces. At each decision point one transfer is drawn: a payload of the table,
sent as soon as its head segment ends. How long it takes there is known from the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from agents.compare.rollout import scenarios_on
from controller.controllers.base import Controller
from controller.controllers.registry import make_controller
from controller.predict.transfer import (
    HISTORY_INPUTS,
    LEVELS,
    PAYLOAD_INPUTS,
    TransferPredictor,
    default_predictor,
    history_inputs,
    payload_inputs,
)
from controller.records import Float32s, Ints
from controller.scenario import Scenario
from envs.setup import Setup

#: Controllers whose samples of the uplink a predictor learns from, and is judged on.
PLAYERS = ("greedy", "random")
EPISODES = 384
HIDDEN = 48
_SEED = 70_000
_EPOCHS = 30
_BATCH = 1024
_LEARNING_RATE = 5e-3


class Transfers(NamedTuple):
    """N transfers."""

    history: Float32s  # (N, HISTORY_INPUTS)
    payload: Float32s  # (N, PAYLOAD_INPUTS)
    log_ratio: Float32s  # (N,) log of the time that it took over the usual time
    trace: Ints  # (N,) number of the trace


def train_predictor(setup: Setup) -> TransferPredictor:
    """A predictor for the setup's traces and payloads; the untrained one where nothing can be sent."""
    if setup.costs.space.device_only.all():
        return default_predictor()
    return fit(collect(setup, EPISODES, _SEED))


def collect(setup: Setup, episodes: int, seed: int) -> Transfers:
    """One transfer per decision point of ``episodes`` scenarios of the setup, played by PLAYERS."""
    rng, scenarios = np.random.default_rng(seed), scenarios_on(setup, episodes, seed)
    found = []
    for turn, name in enumerate(PLAYERS):
        part = scenarios[turn :: len(PLAYERS)]
        controller = make_controller(name, setup.costs, setup.range.utility, seed=seed, batch=len(part))
        found += _played(setup, controller, part, rng)
    return Transfers(*[np.concatenate(column) for column in zip(*found, strict=True)])


def _played(
    setup: Setup, controller: Controller, scenarios: Sequence[Scenario], rng: np.random.Generator
) -> list[Transfers]:
    """The transfers of the decision points of each step."""
    twin = setup.twin(len(scenarios))
    state = twin.reset(scenarios=scenarios)
    rows = np.flatnonzero(~setup.costs.space.device_only)
    trace = np.array([scenario.trace_index for scenario in scenarios])
    start_s = np.array([scenario.trace_start_s for scenario in scenarios])
    share = np.array([scenario.uplink_share_frac for scenario in scenarios])
    alive, found = np.ones(len(scenarios), bool), []
    while alive.any():
        row = rng.choice(rows, len(scenarios))
        history, mean_bps = history_inputs(state)
        delay_s = setup.costs.head_s[row] * state.device_slowdown
        bits = setup.costs.uplink_bytes[row] * 8.0
        begin_s = start_s + twin.frame * state.capture_period_s + state.frame_age_s + delay_s
        took_s = setup.bank.finish_s(trace, begin_s, bits / share) - begin_s
        payload = payload_inputs((bits / mean_bps)[:, None], delay_s[:, None])[:, 0]
        log_ratio = np.log(took_s / (bits / mean_bps)).astype(np.float32)
        found.append(Transfers(history[alive], payload[alive], log_ratio[alive], trace[alive]))
        state, record = twin.step(controller.decide(state))
        alive &= ~record.done
    return found


def fit(transfers: Transfers, seed: int = 0) -> TransferPredictor:
    """The predictor with the least pinball loss of log time."""
    torch.manual_seed(seed)
    inputs = torch.from_numpy(np.concatenate([transfers.history, transfers.payload], axis=1))
    target = torch.from_numpy(transfers.log_ratio)
    net = nn.Sequential(nn.Linear(HISTORY_INPUTS + PAYLOAD_INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, len(LEVELS)))
    steps = _EPOCHS * max(len(target) // _BATCH, 1)
    optimiser = torch.optim.Adam(net.parameters(), _LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        batch = torch.randint(len(target), (_BATCH,))
        loss = pinball(net(inputs[batch]), target[batch])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    first, bias, out, out_bias = (weight.detach().numpy() for weight in net.parameters())
    weights = np.split(first.T, [HISTORY_INPUTS])
    return TransferPredictor(*[np.ascontiguousarray(w) for w in (*weights, bias, out.T, out_bias)])


def pinball(predicted: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Mean quantile loss of predictions (N, Q) at LEVELS for values (N,)."""
    levels = torch.tensor(LEVELS)
    above = value[:, None] - predicted
    return torch.maximum(levels * above, (levels - 1.0) * above).mean()
