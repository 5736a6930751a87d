"""The guard: a learned policy decides, and a classical controller takes over where the policy cannot be trusted.

Theory of operation. Each of the B rows is in one of five modes: the policy decides, or the classical controller does
for one of four reasons.

    policy --errors--------> classical     the policy raised in place of a choice
    policy --observations--> classical     the state is outside what the policy was trained on, does not move, or
                                           gives no finite figure
    policy --failures------> classical     frames fail more often than the classical controller predicts for itself
    policy --choices-------> classical     what the policy chooses is expected to be worth less, and attains less
    classical --return-----> policy        after ``hold`` good decisions

``controller.guard.evidence`` has the tests behind failures and choices. The first two need no test: the frame itself
is decided by the classical controller. What is not finite enters no sum. While the classical controller decides, the
policy is asked beside it. A decision counts as good if the observation is sound and the policy's choice is not
expected to be much worse; one that is not takes two good ones back. ``hold`` doubles with every hand-over that follows
soon after a return, so that a policy that is broken for good costs less and less, and starts anew after a long time
without one.

What the table cannot say: a state that does not move at all is useless to every controller, and the classical one
decides only because nothing better is there. A policy that fails because the network does (all would fail) may be
replaced for a while; the classical controller is then about as good, so that this costs little.
"""

from __future__ import annotations

import numpy as np

from controller.features.schema import CONTEXT_FEATURES
from controller.guard import evidence
from controller.guard.judge import Judge, Verdict
from controller.records import Bools, Floats, Ints, SystemState
from controller.timeline import OUTCOME_ALPHA, smooth

POLICY, OBSERVATIONS, FAILURES, CHOICES, ERRORS = range(5)
REASONS = ("observations", "failures", "choices", "errors")
#: What is counted, in this order.
COUNTS = ("decisions", "classical_decisions", *(f"hand_overs_{reason}" for reason in REASONS), "returns")
_FIRST_REASON = COUNTS.index(f"hand_overs_{REASONS[0]}")
#: Good decisions until the policy returns: at first, and at most.
FIRST_HOLD, MOST_HOLD = 100, 6400
#: A hand-over so many holds after a return doubles the hold.
SOON_HOLDS = 4
#: The policy's choice may be expected to be worse by so much in a good decision.
MUCH_WORSE = 0.1
#: What one decision that is not good takes back.
SETBACK = 2
#: So many states in a row without any change are no observation.
STUCK_STATES = 5
#: What moves from one decision to the next wherever a clock runs.
_MOVING = ("frame_age_s", "uplink_age_s", "mec_age_s", "device_slowdown")
_MOST_LINES = 100


class Guard:
    """A controller that owns, for each row, its mode, the evidence and counts."""

    def __init__(self, judge: Judge, policy: str, classical: str, batch: int = 1) -> None:
        """``policy`` and ``classical``: names of the two controllers of the judge, made for ``batch`` states."""
        self.name = policy
        self.classical = classical
        self._judge = judge
        self.counts = np.zeros((batch, len(COUNTS)), np.int64)  # since the start, in each row
        self._lines: list[str] = []
        self._batch = batch
        self._mode = np.zeros(batch, np.int64)
        self._failures, self._losses = np.zeros(batch), np.zeros(batch)
        self._good = np.zeros(batch, np.int64)
        self._hold = np.full(batch, FIRST_HOLD)
        self._since_return = np.full(batch, SOON_HOLDS * MOST_HOLD)  # decisions
        self._failed_frac: Floats = np.zeros(batch)
        self._worth = np.full(batch, np.nan)  # of what the policy chose lately; not a number before its first choice
        self._before = np.full((batch, len(_MOVING)), np.nan)
        self._unmoved = np.zeros(batch, np.int64)

    def reset(self, rows: Bools) -> None:
        """An episode begins in these rows (B,): the policy decides, and nothing is held against it."""
        self._judge.reset(rows)
        for memory in (self._mode, self._failures, self._losses, self._good, self._failed_frac, self._unmoved):
            memory[rows] = 0
        self._hold[rows], self._since_return[rows] = FIRST_HOLD, SOON_HOLDS * MOST_HOLD
        self._before[rows] = self._worth[rows] = np.nan

    def decide(self, state: SystemState) -> Ints:
        """(B,) rows."""
        verdict = self._judge.of(state)
        unsound = self._is_stuck(state) | verdict.outside.any(axis=1) | ~verdict.known
        error = np.full(self._batch, bool(verdict.error))
        self._weigh(state, verdict)
        trusted = self._mode == POLICY
        reason = np.select(
            [error, unsound, evidence.fails_too_often(self._failures), evidence.loses_too_much(self._losses)],
            [ERRORS, OBSERVATIONS, FAILURES, CHOICES],
            POLICY,
        )
        leaves = trusted & (reason != POLICY)
        good = ~error & ~unsound & (verdict.behind <= MUCH_WORSE)
        self._good += np.where(trusted, 0, np.where(good, 1, -SETBACK))
        np.maximum(self._good, 0, out=self._good)
        returns = ~trusted & good & (self._good >= self._hold)
        self._since_return += trusted
        if leaves.any():
            self._hand_over(leaves, reason, verdict)
        if returns.any():
            self._return(returns)
        by_policy = self._mode == POLICY
        self.counts[:, COUNTS.index("decisions")] += 1
        self.counts[:, COUNTS.index("classical_decisions")] += ~by_policy
        return np.where(by_policy, verdict.policy, verdict.classical)

    def take_lines(self) -> list[str]:
        """What happened since the last call, one line each; of a single row only."""
        taken, self._lines = self._lines, []
        return taken

    def notes(self) -> dict[str, int]:
        """``counts`` of all rows: decisions, those of the classical controller, hand-overs by reason, returns."""
        return dict(zip(COUNTS, self.counts.sum(axis=0).tolist(), strict=True))

    def _is_stuck(self, state: SystemState) -> Bools:
        """(B,) states that did not move for STUCK_STATES decisions."""
        now = np.stack([getattr(state, name) for name in _MOVING], axis=1)
        self._unmoved = np.where((now == self._before).all(axis=1), self._unmoved + 1, 0)
        self._before = now
        return np.asarray(self._unmoved >= STUCK_STATES)

    def _weigh(self, state: SystemState, verdict: Verdict) -> None:
        """Add what the newest outcomes and the newest choice say; only while the policy decides. A row with a figure
        that is not finite keeps what it had."""
        now, trusted = evidence.failed_frac(state), self._mode == POLICY
        known = verdict.known & np.isfinite(now)
        first = np.isnan(self._worth)
        with np.errstate(invalid="ignore"):
            failures = evidence.newest_failures(self._failed_frac, now)
            worth = np.where(first, verdict.worth, smooth(self._worth, verdict.worth, OUTCOME_ALPHA))
            short = verdict.expected - worth * state.on_time_frac
            failing = evidence.more_failures(self._failures, failures, verdict.fails)
            losing = evidence.more_losses(self._losses, verdict.behind, short)
        self._failed_frac = np.where(np.isfinite(now), now, self._failed_frac)
        self._worth = np.where(known, worth, self._worth)
        self._failures = np.where(trusted, np.where(known, failing, self._failures), 0.0)
        self._losses = np.where(trusted, np.where(known, losing, self._losses), 0.0)

    def _hand_over(self, leaves: Bools, reason: Ints, verdict: Verdict) -> None:
        soon = self._since_return < SOON_HOLDS * self._hold
        doubled = np.minimum(2 * self._hold, MOST_HOLD)
        self._hold = np.where(leaves, np.where(soon, doubled, FIRST_HOLD), self._hold)
        self._mode, self._good = np.where(leaves, reason, self._mode), np.where(leaves, 0, self._good)
        rows = np.flatnonzero(leaves)
        self.counts[rows, _FIRST_REASON - 1 + reason[rows]] += 1
        if self._batch == 1:
            why = _why(int(reason[0]), verdict)
            self._say(f"guard: {self.classical} decides from now on: {why}; {self.name} returns after {self._hold[0]} "
                      "good decisions")  # fmt: skip

    def _return(self, returns: Bools) -> None:
        self._mode, self._since_return = np.where(returns, POLICY, self._mode), np.where(returns, 0, self._since_return)
        self._failures[returns] = self._losses[returns] = 0.0
        self._worth[returns] = np.nan
        self.counts[:, COUNTS.index("returns")] += returns
        if self._batch == 1:
            self._say(f"guard: {self.name} decides again")

    def _say(self, text: str) -> None:
        if len(self._lines) < _MOST_LINES:
            self._lines.append(text)


def _why(reason: int, verdict: Verdict) -> str:
    """The reason in words, of a verdict on one state."""
    if reason == ERRORS:
        return f"it failed: {verdict.error}"
    if reason == FAILURES:
        return "frames fail more often than it predicts for itself"
    if reason == CHOICES:
        return "what the policy chooses is worth less, and attains less"
    outside = verdict.outside[0].tolist()
    names = [name for name, is_outside in zip(CONTEXT_FEATURES, outside, strict=True) if is_outside]
    if names:
        return f"{', '.join(names)} outside what the policy was trained on"
    return "the observations do not move" if verdict.known[0] else "what the observations come to is not finite"
