"""Which codecs a foreign model's cuts get, and on how many frames they are measured.

A few validation frames pass through every codec. A codec stays where the answers after it agree with the answers
without it; a bundle with the others would only take longer to measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runtime.building.variants import run_variants
from runtime.bundles.manifest import LOSSLESS
from runtime.codecs import IMAGE, TENSOR, get_codec
from runtime.codecs.base import Kind
from runtime.models.stages import BranchyModel
from runtime.workloads.base import Workload
from runtime.workloads.types import Images

#: Offered at every cut before the choice; the first is always kept, as the default of the cut.
TENSOR_CODECS = ("u8", "u4", "u2", "u1")
IMAGE_CODECS = ("raw", "png", "jpeg75", "jpeg30", "jpeg10", "webp50", "webp10")
#: A codec after which the answers agree less, at every resolution, is left out. Pictures stay longer: they are what a
#: split is compared with, and a model that was trained without JPEG may be sensitive to it.
LEAST_AGREEMENT, LEAST_PICTURE_AGREEMENT = 0.7, 0.3
#: Frames that are looked at. More tell little about agreements that are far from the limit.
PROBE_FRAMES = 6
#: Bounds of the frames of a split on which a model is measured.
LEAST_SAMPLES, MOST_SAMPLES = 40, 1000


@dataclass(frozen=True)
class Probed:
    """One codec at one cut: how much the answers of the last exit after it agree with the exact ones, 0 to 1."""

    resolution_px: int
    cut: int
    codec: str
    agreement: float


@dataclass(frozen=True)
class ChosenCodecs:
    """The codecs that stay, per cut (0: of images), and what was left out."""

    codecs: dict[int, tuple[str, ...]]
    left_out: tuple[Probed, ...]  # at the resolution where it agrees most


def offered_codecs(more: Sequence[str] = ()) -> dict[Kind, tuple[str, ...]]:
    """The codecs to try, with those of the user's own choice last."""
    usual: dict[Kind, tuple[str, ...]] = {IMAGE: IMAGE_CODECS, TENSOR: TENSOR_CODECS}
    return {
        kind: tuple(dict.fromkeys((*names, *(name for name in more if get_codec(name).kind == kind))))
        for kind, names in usual.items()
    }


def probe(
    model: BranchyModel, workload: Workload, px: int, images: Iterable[Images], codecs: Mapping[int, Sequence[str]]
) -> list[Probed]:
    """Agreement after every lossy codec, on batches of u8 images (n, h, w[, 3]) at one resolution."""
    outputs = run_variants(model, workload, images, codecs)
    last = len(model.exits) - 1
    exact = workload.answers(outputs[last, 0, LOSSLESS], px)
    found = []
    for (exit_branch, cut, codec), output in outputs.items():
        if exit_branch == last and codec != LOSSLESS:
            answers = workload.answers(output, px)
            scores = [workload.score(got, want) for got, want in zip(answers, exact, strict=True)]
            found.append(Probed(px, cut, codec, float(np.mean(scores))))
    return found


def choose_codecs(codecs: Mapping[int, Sequence[str]], probed: Sequence[Probed]) -> ChosenCodecs:
    """The codecs that agree enough at any resolution; the first of each cut, and those without loss, always stay."""
    best: dict[tuple[int, str], Probed] = {}
    for row in probed:
        known = best.get((row.cut, row.codec))
        if known is None or row.agreement > known.agreement:
            best[row.cut, row.codec] = row
    chosen, left = {}, []
    for cut, names in codecs.items():
        least = LEAST_AGREEMENT if cut else LEAST_PICTURE_AGREEMENT
        dropped = [name for name in names[1:] if not get_codec(name).lossless and best[cut, name].agreement < least]
        chosen[cut] = tuple(name for name in names if name not in dropped)
        left += [best[cut, name] for name in dropped]
    return ChosenCodecs(chosen, tuple(left))


def samples_within(budget_s: float, whole_s: float, tails: float, splits: int = 2) -> int:
    """How many frames of each split are measured in about ``budget_s`` seconds.

    ``whole_s``: one run of the whole model at every resolution. ``tails``: runs of tails after lossy payloads, in runs
    of the whole model.
    """
    per_frame_s = whole_s * (tails + 2.0) * splits  # exact answers, and the heads once more for the payloads' sizes
    return int(np.clip(budget_s / max(per_frame_s, 1e-6), LEAST_SAMPLES, MOST_SAMPLES))


def tail_runs(codecs: Mapping[int, Sequence[str]], macs_after_frac: Mapping[int, float]) -> float:
    """Runs of tails for one frame, in runs of the whole model, given the share of its work after each cut."""
    lossy = {cut: sum(not get_codec(name).lossless for name in names) for cut, names in codecs.items()}
    return sum(count * macs_after_frac.get(cut, 1.0) for cut, count in lossy.items())
