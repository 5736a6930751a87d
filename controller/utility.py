"""What is a frame worth? The objective that agents learn and that every table reports.

``utility = score if on time - energy_weight_per_j * energy_j - drop_penalty if dropped``

A frame that is not run (skipped) is on time; its score is that of the earlier answer that stands for it.

Energy is modelled, not measured: device power times busy time, radio power times transmission time. The
default powers are those of a Raspberry Pi 4 class board (about 6 W under full load over 2.7 W idle) and of an
LTE radio while it sends (about 1.2 W, Huang et al., MobiSys 2012, section 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import overload

import numpy as np

from controller.errors import UsageError
from controller.records import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Utility:
    """Weights of the objective and power constants of the energy model."""

    energy_weight_per_j: float = 0.05  # one joule costs as much as five points of accuracy
    drop_penalty: float = 0.1  # on top of the score that a dropped frame does not earn
    compute_power_w: float = 3.3  # device busy, above idle
    radio_power_w: float = 1.2  # while bytes cross the uplink

    def __post_init__(self) -> None:
        for name in ("energy_weight_per_j", "drop_penalty", "compute_power_w", "radio_power_w"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"utility {name}: got {value}; expected a number 0 or more")

    @overload
    def energy_j(self, device_busy_s: float, transmit_s: float) -> float: ...
    @overload
    def energy_j(self, device_busy_s: Floats, transmit_s: Floats) -> Floats: ...
    def energy_j(self, device_busy_s: float | Floats, transmit_s: float | Floats) -> float | Floats:
        """Modelled energy of one frame above idle, in joules."""
        return self.compute_power_w * device_busy_s + self.radio_power_w * transmit_s

    def of(self, score: Floats, on_time: Bools, energy_j: Floats, dropped: Bools | Ints) -> Floats:
        """Utility of each frame, with the number of dropped ones (or whether it was itself); arrays broadcast."""
        earned = score * on_time
        return np.asarray(earned - self.energy_weight_per_j * energy_j - self.drop_penalty * dropped)
