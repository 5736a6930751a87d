"""Fits the tables of a shape on the levels of consecutive training frames, by counting.

For each age a chain of payloads is replayed in which each refers to the one that many frames earlier. Counts of a
context begin with a few pseudo-counts of a coarser estimate, so that a rare context is neither certain nor unknown:
rank tables start from "as in the reference", level tables from all channels together, and these from the rank itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controller.errors import UsageError
from runtime.codecs.signs.compiled import compiled_passes
from runtime.codecs.signs.contexts import ACTIVITIES, FIRST_CONTEXTS, SECOND_CONTEXTS, at_rest
from runtime.codecs.signs.space import rows_of, space_of
from runtime.codecs.signs.tables import AGES, CLASSES, ONE, RANKS, prefix

_PSEUDO_COUNTS = 2.0
_CHANGED_FRAC = 0.05  # of places in a context that never occurred
_LEAST = 1e-6  # probability that is treated as 0

Counts = NDArray[np.int32]  # (channels, activities, contexts, 2): places by level
Floats = NDArray[np.float64]


def fit_tables(levels: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Tables for levels (frames, channels, h, w) of 0 and 1 of consecutive frames, by name; about 0.2 MB.

    Names begin with the shape, so that tables of several shapes can be merged. UsageError for fewer than two frames.
    """
    if levels.ndim != 4 or len(levels) < 2:
        raise UsageError(
            f"levels of shape {levels.shape} to fit tables; expected two or more frames of (channels, h, w)"
        )
    channels, h, w = levels.shape[1:]
    binary = levels > 0
    background = binary.mean(axis=0) > 0.5
    fitted: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in ("near1", "near2", "level1", "level2")}
    for age in (0, *AGES):
        for half, counts in zip("12", _replayed(binary, background, min(age, len(levels) - 1)), strict=True):
            near = _fit_near(counts.sum(axis=(0, 1)))
            fitted["near" + half].append(near)
            fitted["level" + half].append(_fit_levels(counts, near))
    tables = {name: np.stack(tables) for name, tables in fitted.items()}
    tables["background"] = np.packbits(background)
    return {prefix((channels, h, w)) + name: table for name, table in tables.items()}


def _replayed(levels: NDArray[np.bool_], background: NDArray[np.bool_], age: int) -> tuple[Counts, Counts]:
    """Counts of both halves in payloads that refer to the one ``age`` frames earlier; 0: to the background."""
    counts = np.zeros((2, levels.shape[1], ACTIVITIES, max(FIRST_CONTEXTS, SECOND_CONTEXTS), 2), np.int32)
    memories = [at_rest(background if age == 0 else frame, 0).values for frame in levels[: max(age, 1)]]
    for frame in levels[age:]:
        space = space_of(memories[0])
        compiled_passes().count(counts, space, rows_of(frame))
        if age:
            memories = [*memories[1:], space.after.reshape(memories[0].shape)]
    return counts[0, :, :, :FIRST_CONTEXTS], counts[1, :, :, :SECOND_CONTEXTS]


def _estimate(counts: Counts, prior: Floats) -> Floats:
    """Probability of level 1, from counts (..., 2) and a prior (...)."""
    estimate: Floats = (counts[..., 1] + _PSEUDO_COUNTS * prior) / (counts.sum(axis=-1) + _PSEUDO_COUNTS)
    return estimate


def _fit_near(counts: Counts) -> NDArray[np.uint8]:
    """Rank of each context, from counts (contexts, 2)."""
    as_reference = np.where(np.arange(len(counts)) % 2, 1 - _CHANGED_FRAC, _CHANGED_FRAC)
    p = np.clip(_estimate(counts, as_reference), _LEAST, 1 - _LEAST)
    ranks: NDArray[np.uint8] = np.clip(np.rint(2 * np.log2(p / (1 - p))) + RANKS // 2, 0, RANKS - 1).astype(np.uint8)
    return ranks


def _fit_levels(counts: Counts, near: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Predictions (channels, activities * ranks)."""
    of_ranks = np.stack([counts[:, :, near == rank].sum(axis=2) for rank in range(RANKS)], axis=2)
    by_rank = 1 / (1 + np.exp2(-(np.arange(RANKS) - RANKS // 2) / 2))
    pooled = _estimate(of_ranks.sum(axis=0), by_rank)
    return _predictions(_estimate(of_ranks, pooled)).reshape(len(counts), -1)


def _predictions(p: Floats) -> NDArray[np.uint8]:
    """The byte of each prediction, for probabilities of level 1."""
    bits = -np.log2(np.clip(np.maximum(p, 1 - p), 0.5, 1 - _LEAST))
    classes = np.clip(np.rint(-8 * np.log2(bits)), 0, CLASSES - 1)
    predictions: NDArray[np.uint8] = (classes + ONE * (p > 0.5)).astype(np.uint8)
    return predictions
