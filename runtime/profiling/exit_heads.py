"""Device times of exit heads alone, which gates run on the way to a later exit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from controller.errors import UsageError
from controller.predict.regression import predict_layers_s
from runtime.bundles.bundle import Bundle
from runtime.profiling.profile import Profile, Source, exit_key, is_exit


def exit_times(bundle: Bundle, profile: Profile, source: Source) -> Callable[[str, int, int], float]:
    """The time of the exit head of a model, resolution and exit, in seconds; judging its answer is included.

    A profile that is older than gates has no such times. The regressions of its layers then predict those of the head,
    as Edgent does (arXiv 1806.07840, section 3); judging is left out. UsageError when it has no device side.
    """
    if profile.device is None:
        raise UsageError("the profile has no device side; add one with `mecpilot profile --side device --merge FILE`")
    field = "median_s" if source == "measured" else "regression_s"
    known = {s.key: float(getattr(s, field)) for s in profile.device.segments if is_exit(s.key)}
    if not known:
        return _predicted(bundle, profile)

    def exit_s(model: str, px: int, exit_branch: int) -> float:
        return known[exit_key(model, px, exit_branch, bundle.info(model).exit_after[exit_branch])]

    return exit_s


def _predicted(bundle: Bundle, profile: Profile) -> Callable[[str, int, int], float]:
    """Times by the regressions of a profile; the networks are loaded, because their layers must be known."""
    from runtime.inference.segments import Segments

    segments, device = Segments(bundle, bundle.work), profile.device
    assert device is not None

    @cache
    def exit_s(model: str, px: int, exit_branch: int) -> float:
        engine, after = segments.engine(model), bundle.info(model).exit_after[exit_branch]
        with engine.computing():
            z = engine.from_arrays([np.zeros(bundle.payload_shape(model, px, after), np.float32)])
            layers = segments.loaded(model).record_exit(z, exit_branch)
        return predict_layers_s(device.regressions, [(layer.info.kind, layer.info.regressors) for layer in layers])

    return exit_s
