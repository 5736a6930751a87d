"""The health check of a release: inputs with the outputs that they must give, made where the release is signed.

The operator runs a release on sample inputs and puts inputs and outputs into the release (``CHECK_FILE``), so that they
are signed with it. Whoever is to use the release runs it on the same inputs first and compares. For a bundle, an input
is the payload of a decision that is offloaded, and the output what its tail computes: the part of a MEC. Every model is
among the decisions. For a policy, inputs are random observations, outputs the scores of all candidates.

Outputs are compared within the tolerances of the release, because another processor may add in another order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from controller.errors import FailureError, MecpilotError
from controller.records import NO_PAYLOAD, Decision
from runtime.bundles.bundle import Bundle
from runtime.codecs.streams import stream_key
from runtime.deploy.release import BUNDLE, CHECK_FILE, POLICY_FILE, Release
from runtime.workloads.base import Workload
from runtime.workloads.types import Image

#: Decisions of a bundle, or observations of a policy, that are compared.
SAMPLES = 16
_CANDIDATES = 8
_SEED = 20

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Compared:
    """Result of a health check that was passed."""

    samples: int
    largest_difference: float


def samples_of_bundle(bundle: Bundle, workload: Workload, samples: int = SAMPLES) -> bytes:
    """The check file of a bundle: rows, payloads and the outputs of their tails, computed here."""
    import torch

    from runtime.inference.segments import Segments

    torch.set_num_threads(1)  # as a MEC computes
    segments, arrays = Segments(bundle, workload), Arrays()
    rows = _rows(bundle, samples)
    for number, (row, image) in enumerate(zip(rows, _images(bundle, workload, len(rows)), strict=True)):
        decision = bundle.space.decisions[row]
        payload = segments.head(image, decision).payload
        arrays[f"payload_{number}"] = np.frombuffer(payload, np.uint8)
        arrays[f"outputs_{number}"] = np.ascontiguousarray(segments.tail(payload, decision))
    return save(arrays | {"rows": np.array(rows, np.int64)})


def samples_of_policy(path: Path, samples: int = SAMPLES) -> bytes:
    """The check file of a policy: observations and the scores of their candidates."""
    from runtime.files.policy_file import load_policy

    policy = load_policy(path)[0]
    rng = np.random.default_rng(_SEED)
    context = rng.standard_normal((samples, policy.from_context.shape[0])).astype(np.float32)
    candidates = rng.standard_normal((samples, _CANDIDATES, policy.from_candidate.shape[0])).astype(np.float32)
    scores = np.ascontiguousarray(policy.scores(context, candidates))
    return save({"context": context, "candidates": candidates, "scores": scores})


def compare(release: Release, folder: Path, workload: Workload | None = None) -> Compared:
    """Run a release that lies in a folder on its samples. ``workload`` is the one to use for a bundle.

    FailureError with the first output that differs, or with what kept the release from running.
    """
    try:
        arrays = load_file(folder / CHECK_FILE)
        pairs = _bundle_pairs(folder, arrays, workload) if release.kind == BUNDLE else _policy_pairs(folder, arrays)
    except (SafetensorError, KeyError, OSError, ValueError) as error:
        raise FailureError(f"the release cannot be checked: {type(error).__name__}: {error}") from None
    except MecpilotError as error:
        raise FailureError(f"the release cannot be run: {error}") from None
    differences = [_difference(release, number, got, wanted) for number, (got, wanted) in enumerate(pairs)]
    if not differences:
        raise FailureError("the release has no samples to check")
    return Compared(len(differences), max(differences))


def _bundle_pairs(folder: Path, arrays: Arrays, workload: Workload | None) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    import torch

    from runtime.inference.segments import Segments

    torch.set_num_threads(1)
    bundle = Bundle(folder)
    work = workload if workload is not None and bundle.fits(workload) else bundle.work
    segments, space = Segments(bundle.served_by(work), work), bundle.space
    found = []
    for number, row in enumerate(arrays["rows"].tolist()):
        if not 0 <= row < len(space):
            raise FailureError(f"sample {number} is of row {row}; expected one of {len(space)}")
        outputs = segments.tail(arrays[f"payload_{number}"].tobytes(), space.decisions[row])
        found.append((outputs, arrays[f"outputs_{number}"]))
    return found


def _policy_pairs(folder: Path, arrays: Arrays) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    from runtime.files.policy_file import load_policy

    scores = load_policy(folder / POLICY_FILE)[0].scores(arrays["context"], arrays["candidates"])
    return list(zip(scores, arrays["scores"], strict=True))


def _difference(release: Release, number: int, got: NDArray[Any], wanted: NDArray[Any]) -> float:
    """The largest difference of two outputs; FailureError if they are not equal within the tolerances."""
    if not np.isfinite(wanted).all():
        raise FailureError(f"sample {number} expects outputs that are not finite; make the release again")
    if got.shape != wanted.shape or not np.isfinite(got).all():
        raise FailureError(f"sample {number} gave outputs {got.shape} that are not finite or not {wanted.shape}")
    difference = np.abs(got.astype(np.float64) - wanted)
    if (difference > release.atol + release.rtol * np.abs(wanted)).any():
        raise FailureError(
            f"sample {number} gave outputs that differ by up to {difference.max():.3g} from those expected; "
            f"allowed are {release.atol:g} + {release.rtol:g} of the value"
        )
    return float(difference.max(initial=0.0))


def _rows(bundle: Bundle, samples: int) -> list[int]:
    """Rows of decisions that are offloaded and stand alone, evenly over each model."""
    rows: dict[str, list[int]] = {}
    for row, decision in enumerate(bundle.space.decisions):
        if _stands_alone(decision):
            rows.setdefault(decision.model, []).append(row)
    if not rows:
        raise FailureError("the bundle offloads nothing that can be checked")
    each = max(samples // len(rows), 1)
    return [
        of_model[(2 * number + 1) * len(of_model) // (2 * each)] for of_model in rows.values() for number in range(each)
    ]


def _stands_alone(decision: Decision) -> bool:
    return decision.payload != NO_PAYLOAD and stream_key(decision) is None and decision.frame_stride == 1


def _images(bundle: Bundle, workload: Workload, count: int) -> list[Image]:
    """Frames of the workload; noise where its data are not at hand."""
    try:
        return [workload.sample(number, "test")[0] for number in range(count)]
    except (MecpilotError, OSError):
        rng = np.random.default_rng(_SEED)
        return [rng.integers(0, 256, bundle.frame_shape, dtype=np.uint8) for _ in range(count)]
