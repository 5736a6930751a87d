"""Streaming accuracy, what a viewer sees: at each capture the newest answer that is out, against its truth.

Latency then costs accuracy by itself: an answer that comes three frames late is compared with the truth three frames
later (Li, Wang and Ramanan, "Towards Streaming Perception", ECCV 2020). It counts every frame of a stream, whether it
was run, reused an answer or was dropped; deadlines play no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from controller.forecast import Forecaster
from controller.records import Bools, Floats, Ints, Outcome
from controller.reuse import Answers, is_new, past_answer

#: Quality of a prediction against a truth.
Score = Callable[[Any, Any], float]
#: An answer that is out exactly at a capture counts; rounding must not hide one.
TICK = 1e-9


class Stream:
    """Scores what a viewer sees when each outcome's frame is captured; fed in the order in which frames end.

    Frame i is captured at i intervals, and an answer is out its latency after its capture. A reused answer is not out
    again: the answer itself is what a viewer sees already. One that a shortcut knew by itself is out. With a
    forecaster, a viewer sees what the answer has become.
    """

    def __init__(self, interval_s: float, score: Score, forecaster: Forecaster | None = None) -> None:
        self._interval_s, self._score, self._forecaster = interval_s, score, forecaster
        self._answers = Answers()

    def add(self, outcome: Outcome) -> float | None:
        """Score of what was to be seen when this frame was captured; 0 before the first answer, None without truth."""
        seen = None if outcome.truth is None else self._seen(outcome.frame, outcome.truth)
        reused = outcome.status.reused
        if outcome.prediction is not None and (
            not reused or is_new(outcome.status, outcome.reused_frame, outcome.frame)
        ):
            out_s = outcome.frame * self._interval_s + outcome.latency_ms / 1e3
            # Where nothing is scored, there is nothing to track; and what a shortcut knew is no new look at the scene.
            forecaster = None if outcome.truth is None or reused else self._forecaster
            self._answers.add(past_answer(outcome.frame, out_s, outcome.prediction, forecaster, kept=_kept(outcome)))
        return seen

    def _seen(self, frame: int, truth: Any) -> float:
        newest = self._answers.newest_at((frame + TICK) * self._interval_s)
        return 0.0 if newest is None else self._score(newest.at(frame).prediction, truth)


def _kept(outcome: Outcome) -> Sequence[int] | None:
    """The objects that were not seen in the part of the picture that was run; None where the whole was run."""
    return None if outcome.region is None else (outcome.track_ids or ())[outcome.region.seen :]


def streaming_scores(
    outcomes: Sequence[Outcome], interval_s: float, score: Score, forecaster: Forecaster | None = None
) -> Floats:
    """(N,) what was to be seen at the capture of each outcome's frame; NaN where no truth is known."""
    stream, seen = Stream(interval_s, score, forecaster), np.full(len(outcomes), np.nan)
    end_ms = [outcome.frame * interval_s * 1e3 + outcome.latency_ms for outcome in outcomes]
    for place in sorted(range(len(outcomes)), key=lambda place: (end_ms[place], outcomes[place].frame)):
        found = stream.add(outcomes[place])
        seen[place] = np.nan if found is None else found
    return seen


def newest_answered(episode: Ints, frame: Ints, out_frames: Floats, shape: tuple[int, int]) -> Ints:
    """(episodes, frames) number of the newest frame whose answer is out at each capture; -1 before the first.

    Each of the N answers belongs to ``frame`` of ``episode`` and is out at ``out_frames``, in capture periods from the
    start of the episode.
    """
    first = np.ceil(out_frames - TICK)
    counts: Bools = first < shape[1]
    newest = np.full(shape, -1, dtype=np.int64)
    np.maximum.at(newest, (episode[counts], first[counts].astype(np.int64)), frame[counts])
    return np.asarray(np.maximum.accumulate(newest, axis=1))
