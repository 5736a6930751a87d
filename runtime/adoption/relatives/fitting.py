"""The training loop of relatives: as many steps as fit into a time, then the best averaged weights.

A relative has seconds and not epochs. The first steps, on a copy, tell how many fit; from there on the result depends
on the seed and this number alone. When the machine turns slower, training ends early with what is best so far.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from runtime.models.arithmetic import training_arithmetic
from runtime.models.training import (
    Scalars,
    TrainingConfig,
    average_into,
    averaging_decay,
    freeze_norm,
    new_optimizer,
    rate_factor,
)

VALIDATIONS = 5  # of the averaged weights, evenly spread
TIMED_STEPS = 3
MOST_STEPS = 6_000
LATE = 1.2  # training ends when it has taken this many times its seconds
WARMUP = 0.08  # share of the steps

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Lesson(Protocol):
    """What a relative learns."""

    def batch(self, rng: np.random.Generator) -> Any:
        """The samples of one step."""
        ...

    def loss(self, module: nn.Module, batch: Any) -> tuple[Tensor, Scalars]:
        """The loss of a module in training mode, and scalars to log."""
        ...

    def validate(self, module: nn.Module) -> float:
        """How good a module in evaluation mode is on validation frames; the highest wins."""
        ...


@dataclass(frozen=True)
class Pace:
    """How long to train, and how."""

    seconds: float
    seed: int = 0
    steps: int | None = None  # None: as many as fit into the seconds
    peak_rate: float = 3e-3
    weight_decay: float = 0.02
    frozen_from: float = 0.8  # share of the steps after which batch norms keep their statistics
    report: Callable[[float, Scalars], None] = lambda _done, _scalars: None  # the share of the steps done; losses


def fit(module: AnyModule, lesson: Lesson, pace: Pace) -> tuple[AnyModule, int]:
    """Train a module in place; returns a copy with the best averaged weights, for evaluation, and the steps done."""
    torch.set_num_threads(1)
    torch.manual_seed(pace.seed)
    start_s = time.monotonic()
    steps = pace.steps or _fitting_steps(module, lesson, pace)
    torch.manual_seed(pace.seed)
    return _Loop(module, lesson, pace, steps, start_s + LATE * pace.seconds).run()


class _Loop:
    """Owns the optimiser, the averaged weights and the best of them."""

    def __init__(self, module: Any, lesson: Lesson, pace: Pace, steps: int, end_s: float) -> None:
        self._module, self._lesson, self._pace, self._steps, self._end_s = module, lesson, pace, steps, end_s
        config = TrainingConfig(peak_rate=pace.peak_rate, weight_decay=pace.weight_decay)
        self._decay = config.averaging_decay
        self._optimizer = new_optimizer(module, config)
        self._averaged = copy.deepcopy(module).requires_grad_(False).eval()
        self._best: tuple[float, dict[str, Tensor]] | None = None

    def run(self) -> tuple[Any, int]:
        rng = np.random.default_rng(self._pace.seed)
        every = max(1, self._steps // VALIDATIONS)
        self._module.train()
        done = 0
        while done < self._steps and (time.monotonic() < self._end_s or self._pace.steps):
            if done == round(self._pace.frozen_from * self._steps):
                freeze_norm(self._module)
            rate = self._pace.peak_rate * rate_factor(done, self._steps, WARMUP)
            scalars = train_step(self._module, self._optimizer, self._lesson, self._lesson.batch(rng), rate)
            average_into(self._averaged, self._module, averaging_decay(done, self._decay))
            done += 1
            if done % every == 0:
                scalars |= self._validate()
            self._pace.report(done / self._steps, scalars)
        if done % every:
            self._validate()
        if self._best:
            self._averaged.load_state_dict(self._best[1])
        return self._averaged.eval(), done

    def _validate(self) -> Scalars:
        score = self._lesson.validate(self._averaged.eval())
        if self._best is None or score >= self._best[0]:
            self._best = score, {name: value.clone() for name, value in self._averaged.state_dict().items()}
        return {"validation": score}


def train_step(module: nn.Module, optimizer: torch.optim.Optimizer, lesson: Lesson, batch: Any, rate: float) -> Scalars:
    """One step of an optimiser at a learning rate; returns what to log."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    with training_arithmetic():
        loss, scalars = lesson.loss(module, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(module.parameters(), 5.0)
    optimizer.step()
    return {**scalars, "rate": rate}


def _fitting_steps(module: nn.Module, lesson: Lesson, pace: Pace) -> int:
    """The steps that fit into the time, with their validations, as a copy of the module shows."""
    trial = copy.deepcopy(module).train()
    optimizer = new_optimizer(trial, TrainingConfig(peak_rate=pace.peak_rate))
    rng = np.random.default_rng(pace.seed)
    times = []
    for _ in range(TIMED_STEPS + 1):
        start_s = time.monotonic()
        train_step(trial, optimizer, lesson, lesson.batch(rng), 1e-5)
        times.append(time.monotonic() - start_s)
    start_s = time.monotonic()
    lesson.validate(trial.eval())
    check_s = time.monotonic() - start_s
    left_s = pace.seconds - sum(times) - (VALIDATIONS + 1) * check_s
    return int(np.clip(left_s / np.mean(times[1:]), 2 * VALIDATIONS, MOST_STEPS))
