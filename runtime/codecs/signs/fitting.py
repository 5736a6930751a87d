"""Fits the tables of a shape on the levels of consecutive training frames, by counting.

For each age a chain of payloads is replayed in which each refers to the one that many frames earlier. Counts of a
context begin with a few pseudo-counts of a coarser estimate, so that a rare context is neither certain nor unknown:
rank tables start from "as in the reference", level tables from all channels together, and these from the rank itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.errors import UsageError
from runtime.codecs.signs.contexts import ACTIVITIES, FIRST_CONTEXTS, SECOND_CONTEXTS, Contexts, at_rest, remember
from runtime.codecs.signs.grid import Grid, grid_of
from runtime.codecs.signs.tables import AGES, CLASSES, ONE, RANKS, prefix

_PSEUDO_COUNTS = 2.0
_CHANGED_FRAC = 0.05  # of places in a context that never occurred
_LEAST = 1e-6  # probability that is treated as 0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Places:
    """Places of one half of many payloads, without padding: one element each."""

    contexts: NDArray[np.int64]
    activities: NDArray[np.int64]
    channels: NDArray[np.int64]
    levels: NDArray[np.bool_]


def fit_tables(levels: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Tables for levels (frames, channels, h, w) of 0 and 1 of consecutive frames, by name; a few 10 kB.

    Names begin with the shape, so that tables of several shapes can be merged. UsageError for fewer than two frames.
    """
    if levels.ndim != 4 or len(levels) < 2:
        raise UsageError(
            f"levels of shape {levels.shape} to fit tables; expected two or more frames of (channels, h, w)"
        )
    channels, h, w = levels.shape[1:]
    grid, binary = grid_of((channels, h, w)), levels > 0
    background = binary.mean(axis=0) > 0.5
    fitted: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in ("near1", "near2", "level1", "level2")}
    for age in (0, *AGES):
        for half, places in enumerate(_replayed(grid, binary, background, min(age, len(levels) - 1)), 1):
            near = _fit_near(places, FIRST_CONTEXTS if half == 1 else SECOND_CONTEXTS)
            fitted[f"near{half}"].append(near)
            fitted[f"level{half}"].append(_fit_levels(places, near, channels))
    tables = {name: np.stack(tables) for name, tables in fitted.items()}
    tables["background"] = np.packbits(background)
    return {prefix(grid.shape) + name: table for name, table in tables.items()}


def _replayed(grid: Grid, levels: NDArray[np.bool_], background: NDArray[np.bool_], age: int) -> tuple[Places, Places]:
    """Places of both halves of all payloads that refer to the one ``age`` frames earlier; 0: to the background."""
    first, second = zip(*_contexts(grid, levels, background, age), strict=True)
    return _joined(grid, first, 0), _joined(grid, second, 1)


_Part = tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint8]]


def _contexts(
    grid: Grid, levels: NDArray[np.bool_], background: NDArray[np.bool_], age: int
) -> Iterator[tuple[_Part, _Part]]:
    memories = [at_rest(grid, background if age == 0 else frame) for frame in levels[: max(age, 1)]]
    for frame in levels[age:]:
        first, second = grid.halves(frame)
        contexts = Contexts(grid, memories[0])
        yield (
            (*contexts.of_first(), grid.inside(first)),
            (*contexts.of_second(first), grid.inside(second)),
        )
        if age:
            memories = [*memories[1:], remember(memories[0], first, second)]


def _joined(grid: Grid, parts: tuple[_Part, ...], half: int) -> Places:
    channel = grid.channel_of()[half]
    inner = channel < grid.shape[0]
    repeats = grid.channels // 2
    return Places(
        np.concatenate([contexts[inner] for contexts, _, _ in parts]).astype(np.int64),
        np.concatenate([np.tile(activity, repeats)[inner] for _, activity, _ in parts]).astype(np.int64),
        np.tile(channel[inner], len(parts)),
        np.concatenate([levels[inner] for _, _, levels in parts]).astype(bool),
    )


def _estimate(indices: NDArray[np.int64], levels: NDArray[np.bool_], prior: Floats) -> Floats:
    """Probability of level 1 for each index, from counts and a prior."""
    ones = np.bincount(indices, levels, len(prior))
    total = np.bincount(indices, minlength=len(prior))
    return (ones + _PSEUDO_COUNTS * prior) / (total + _PSEUDO_COUNTS)


def _fit_near(places: Places, contexts: int) -> NDArray[np.uint8]:
    """Rank of each context."""
    as_reference = np.where(np.arange(contexts) % 2, 1 - _CHANGED_FRAC, _CHANGED_FRAC)
    p = np.clip(_estimate(places.contexts, places.levels, as_reference), _LEAST, 1 - _LEAST)
    ranks: NDArray[np.uint8] = np.clip(np.rint(2 * np.log2(p / (1 - p))) + RANKS // 2, 0, RANKS - 1).astype(np.uint8)
    return ranks


def _fit_levels(places: Places, near: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Predictions (channels, activities * ranks)."""
    cells = places.activities * RANKS + near[places.contexts]
    of_rank = 1 / (1 + np.exp2(-(np.arange(RANKS) - RANKS // 2) / 2))
    pooled = _estimate(cells, places.levels, np.tile(of_rank, ACTIVITIES))
    each = _estimate(places.channels * len(pooled) + cells, places.levels, np.tile(pooled, channels))
    return _predictions(each).reshape(channels, -1)


def _predictions(p: Floats) -> NDArray[np.uint8]:
    """The byte of each prediction, for probabilities of level 1."""
    bits = -np.log2(np.clip(np.maximum(p, 1 - p), 0.5, 1 - _LEAST))
    classes = np.clip(np.rint(-8 * np.log2(bits)), 0, CLASSES - 1)
    predictions: NDArray[np.uint8] = (classes + ONE * (p > 0.5)).astype(np.uint8)
    return predictions
