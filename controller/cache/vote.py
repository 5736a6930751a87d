"""Whether the nearest answers agree, and on what: homogenised k nearest neighbours (Guo et al., "FoggyCache",
MobiCom 2018). Near the border between two answers the closest picture alone would often be wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from controller.cache.store import Neighbour

#: Neighbours that vote.
NEIGHBOURS = 5
#: Share of the votes that an answer needs.
LEAST_SHARE = 0.8
#: Distances below this count as this: an equal picture does not outvote all others.
_NEAREST = 1e-3

#: Agreement of one answer with another, 0 to 1: ``Workload.score``.
Score = Callable[[Any, Any], float]


def winner(neighbours: Sequence[Neighbour], score: Score) -> Neighbour | None:
    """The neighbour whose answer has most of the votes; None if nothing has ``LEAST_SHARE`` of them.

    A neighbour votes for each answer as far as its own agrees with it, with a weight of one over its distance.
    """
    if len(neighbours) == 1:
        return neighbours[0]
    weights = [1.0 / max(neighbour.distance, _NEAREST) for neighbour in neighbours]
    votes = [
        sum(
            weight * (1.0 if other is candidate else score(other.answer.prediction, candidate.answer.prediction))
            for weight, other in zip(weights, neighbours, strict=True)
        )
        for candidate in neighbours
    ]
    most = max(votes, default=0.0)
    return neighbours[votes.index(most)] if votes and most >= LEAST_SHARE * sum(weights) else None
