"""When is a frame empty? The rule of the filter that knows empty frames.

A small network gives each frame a score: high where it may hold a target (``runtime.emptiness``). A frame is empty if
its score, and those of the frames looked at just before, are below a threshold. The threshold was set on footage so
that a share of the frames that hold a target, the recall, reaches it.

One of ``VERIFY_EVERY`` empty frames is run all the same. If its answer shows a target, the threshold was too high:

    threshold -= RATE * VERIFY_EVERY * recall          for each verified frame that holds a target
    threshold += RATE * (1 - recall)                   for each other frame that was run and holds one

These are the steps of an online quantile tracker (Gibbs and Candes, NeurIPS 2021), as in ``controller.filtering``. The
threshold never rises above the one that was set on footage: what a model does not find tells nothing.
"""

from __future__ import annotations

#: A frame is empty only if so many frames in a row look empty, itself included: who walks by flickers.
FRAMES_IN_A_ROW = 3
#: One of so many empty frames is run, to see whether it is.
VERIFY_EVERY = 50
#: Step of the threshold, in logits of the network.
RATE = 0.02
#: How far the threshold may go down.
LEAST_SHIFT = -20.0


def looks_empty(score: float, threshold: float) -> bool:
    """Whether a score is that of an empty frame; not where it is no number."""
    return score < threshold


def is_verified(count: int) -> bool:
    """Whether an empty frame is run all the same; ``count``: empty frames so far, this one included."""
    return count % VERIFY_EVERY == 0


def lowered(shift: float, recall: float) -> float:
    """The shift of the threshold after a verified frame that holds a target."""
    return max(shift - RATE * VERIFY_EVERY * recall, LEAST_SHIFT)


def raised(shift: float, recall: float) -> float:
    """The shift after a frame that did not look empty, and holds a target."""
    return min(shift + RATE * (1.0 - recall), 0.0)
