"""The two sequential tests of the guard, and how single outcomes are read from what a state says.

**Failures.** A frame fails if it is late, dropped, or answered by the fallback: not as decided. The classical
controller predicts for itself the chance ``p`` that its choice fails. The test is Page's CUSUM (Biometrika 41, 1954)
on the log-likelihood ratio of "fails with odds ODDS_RATIO times those" against "fails as predicted":

    S <- max(0, S + y log(q / p) + (1 - y) log((1 - q) / (1 - p))),    alarm if S >= log(FRAMES_BETWEEN)

with ``y`` 1 for a failure and ``q`` the chance at the larger odds. If frames fail as predicted or more rarely, at
least ``FRAMES_BETWEEN`` frames pass between two false alarms on average (Lorden, Annals of Mathematical Statistics
42, 1971: the mean time to a false alarm of this test is at least e^threshold), whatever ``p`` does from frame to
frame. Failures that come together more than the prediction says (a link that is lost) are no false alarm in that
sense, so the rate in service was measured as well (docs/policy.md).

**Choices.** A policy that always takes a poor but safe decision never fails. So two differences are looked at for
each frame: how much more the model expects of the classical choice than of the policy's, and how much more it expects
of the classical choice than what the policy attains (accuracy less energy of what it chose lately, times the share in
time). The smaller one counts as lost. The first alone would accuse a policy that knows better than the model; the
second alone a policy whose network is worse than the model thinks, for every controller. Losses above
``LOSS_ALLOWED`` per frame add up (a CUSUM again); the alarm comes when they are worth ``LOSS_FRAMES`` answers.

**Single outcomes.** A state has smoothed shares of failures, ``m <- m + alpha (y - m)`` for each frame that ends.
From two states one after another, ``y = m' + (m - m') / alpha``: exact if one frame ended between them, and otherwise
right on average. So a controller needs nothing but the states, and twin and device are guarded by the same code.

Shapes: (B,) states side by side.
"""

from __future__ import annotations

import math

import numpy as np

from controller.records import Bools, Floats, SystemState
from controller.timeline import OUTCOME_ALPHA

#: The failures that must be noticed: those with so many times the predicted odds.
ODDS_RATIO = 6.0
#: On average so many frames between false alarms, at least: 28 hours at 10 frames per second.
FRAMES_BETWEEN = 1e6
ALARM = math.log(FRAMES_BETWEEN)
#: Predicted chances are believed within these bounds: no model of a network knows better than one in 30. Above the
#: other bound failure is as good as certain, as on a dead link, and frames say nothing either way: failures just as
#: predicted would add up to an alarm, with the chance cut off at the bound.
LEAST_CHANCE, MOST_CHANCE = 1.0 / 30.0, 0.97
#: Utility per frame that the choices of a policy may lose without any alarm, how much in all, and the most that one
#: frame counts: values have no lower bound where delays pile up.
LOSS_ALLOWED, LOSS_FRAMES, MOST_LOSS = 0.02, 0.5, 0.3


def failed_frac(state: SystemState) -> Floats:
    """(B,) smoothed share of frames that did not end as decided."""
    return np.asarray(1.0 - state.on_time_frac + state.fallback_frac)


def newest_failures(before: Floats, now: Floats) -> Floats:
    """(B,) failures among the frames that ended between two states, per frame, from their smoothed shares."""
    return np.asarray((before + (now - before) / OUTCOME_ALPHA).clip(0.0, 1.0))


def more_failures(evidence: Floats, failures: Floats, predicted: Floats) -> Floats:
    """(B,) evidence after frames with so many ``failures`` (0 to 1), where a chance was predicted."""
    p = predicted.clip(LEAST_CHANCE, MOST_CHANCE)
    q = ODDS_RATIO * p / (1.0 - p + ODDS_RATIO * p)
    gain = failures * np.log(q / p) + (1.0 - failures) * np.log((1.0 - q) / (1.0 - p))
    return np.asarray(np.maximum(evidence + np.where(predicted < MOST_CHANCE, gain, 0.0), 0.0))


def more_losses(evidence: Floats, behind: Floats, short: Floats) -> Floats:
    """(B,) utility lost so far above what is allowed, after a choice that is ``behind`` the classical one by so much
    expected utility, while what is attained is ``short`` of it by so much."""
    lost = np.minimum(behind, short).clip(0.0, MOST_LOSS)
    return np.asarray(np.maximum(evidence + lost - LOSS_ALLOWED, 0.0))


def fails_too_often(evidence: Floats) -> Bools:
    return np.asarray(evidence >= ALARM)


def loses_too_much(evidence: Floats) -> Bools:
    return np.asarray(evidence >= LOSS_FRAMES)
