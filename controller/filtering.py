"""When does a picture show nothing new? The rule of the input filter, which device and twin share.

A frame is filtered if its picture differs from that of the newest answer by no more than a threshold. What a difference
means for the answers depends on the scene, so the threshold adapts to a target, the agreement of the answers that
frames get with the answers that they would get if all were run: a frame that is run agrees fully. One of
``VERIFY_EVERY`` frames that would be filtered is run all the same. Its answer tells how well the older one still fits,
and stands for the others.

The threshold follows the budget ``1 - target`` of disagreement per frame as an online quantile tracker does:

    log threshold += RATE * (1 - target)                             for each frame at which the threshold matters
    log threshold -= RATE * VERIFY_EVERY * (1 - agreement)           for each frame that was verified

Its steps sum up to the change of a bounded number, so the mean disagreement cannot stay above the budget, whatever the
stream does (Gibbs and Candes, "Adaptive Conformal Inference Under Distribution Shift", NeurIPS 2021; Angelopoulos,
Candes and Tibshirani, "Conformal PID Control", NeurIPS 2023). The threshold does not matter where the difference is
below half of it: it must not grow while nothing moves, or the next movement would find it too large.

Where answers move on by a forecast, a difference says less: people who walk on as expected change the picture as much
as others. The error of a forecast grows with its age, while the difference stops growing when people have walked past
where they were. So the threshold is one of the change (``change``): the difference times the age, in units of
``FORECAST_AGE`` frames.

Every function takes numbers or arrays.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

#: The oldest answer that may stand, in frames. A bundle has the scores of answers up to this age.
MOST_AGE = 10
#: One of so many frames that would be filtered is run, to see whether the older answer still fits.
VERIFY_EVERY = 10
#: Step of the logarithm of the threshold per unit of disagreement.
RATE = 0.1
#: Where an adapting threshold starts, and its limits; differences are shares of the largest one.
START_THRESHOLD = 0.005
LEAST_THRESHOLD, MOST_THRESHOLD = 1e-4, 0.2
#: Where answers move on, no answer stands for a picture that differs more: it shows another scene, place or light. A
#: threshold of the change may grow so far that it would let such a picture pass. Training frames of campus differ by at
#: most 0.014 from the frame before, and by 0.015 in the median from the third before; after a cut, a move of the camera
#: by 9 lines, night mode or a gain of 0.6 by 0.05 or more.
MOST_DIFFERENCE = 0.02
#: A forecast loses about as much in so many frames as a box that stands still does in one (docs/forecast.md).
FORECAST_AGE = 3.0
#: How far the logarithm of the threshold may go from where it starts.
LEAST_SHIFT, MOST_SHIFT = (math.log(limit / START_THRESHOLD) for limit in (LEAST_THRESHOLD, MOST_THRESHOLD))


def threshold_of(shift: Any) -> Any:
    """The threshold at a distance from its start, in logarithms."""
    return START_THRESHOLD * np.exp(shift)


def change(difference: Any, age: Any) -> Any:
    """What an adapting threshold is compared with where the answer moves on; infinite where the picture differs too
    much for any answer to stand, and not a number where the difference is not."""
    return np.where(np.greater(difference, MOST_DIFFERENCE), np.inf, difference * (age / FORECAST_AGE))


def shows_nothing_new(difference: Any, age: Any, threshold: Any, most_age: int) -> Any:
    """Whether the answer to a picture that was taken ``age`` frames ago may stand. A difference that is not a number
    says nothing."""
    return (difference <= threshold) & (age <= most_age)


def is_verified(count: Any) -> Any:
    """Whether a frame that would be filtered is run all the same; ``count``: such frames so far, this one included."""
    return count % VERIFY_EVERY == 0


def grown(shift: Any, difference: Any, age: Any, target: float) -> Any:
    """The shift after a frame was asked about. An answer that is too old to stand says nothing about the threshold."""
    matters = (difference >= 0.5 * threshold_of(shift)) & (age <= MOST_AGE)
    return np.where(matters, np.minimum(shift + RATE * (1.0 - target), MOST_SHIFT), shift)


def shrunk(shift: Any, agreement: Any) -> Any:
    """The shift after a verified frame, whose older answer agrees this well with its own, from 0 to 1."""
    return np.maximum(shift - RATE * VERIFY_EVERY * (1.0 - agreement), LEAST_SHIFT)
