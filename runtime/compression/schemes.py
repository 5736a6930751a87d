"""The names of compression schemes: what a variant is called, and what is done to its model.

``prune50``: channels are taken out until at most 50 % of the multiply-accumulates are left. ``bits4``: weights have
4 bits. ``int8``: weights and activations have 8 bits, and OpenVINO computes with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from controller.errors import UsageError
from runtime.models.few_bits import BITS

_NAME = re.compile(r"(prune|bits)(\d{1,3})")
#: Per cent of the multiply-accumulates that pruning may leave.
KEPT_PERCENT = range(5, 96)
EXAMPLES = "prune50, bits4, bits1, int8"
_INT8 = "int8"


@dataclass(frozen=True)
class Scheme:
    """One compression of one model. At most one of the fields is set; neither is for 8 bits in OpenVINO."""

    kept_macs_frac: float | None = None
    bits: int | None = None

    @property
    def trains(self) -> bool:
        """Whether the model is trained again. 8 bits need only the ranges of its activations."""
        return self.kept_macs_frac is not None or self.bits is not None

    @property
    def name(self) -> str:
        """The name that `scheme_named` takes, and that the variant's name ends with."""
        if self.kept_macs_frac is not None:
            return f"prune{self.kept_macs_frac * 100:.0f}"
        return _INT8 if self.bits is None else f"bits{self.bits}"

    @property
    def epochs(self) -> int:
        """Default epochs of the fine-tuning: what loses more has more to learn again."""
        if self.kept_macs_frac is not None:
            return 4
        return 1 if self.bits is not None and self.bits >= 4 else 2

    @property
    def peak_rate(self) -> float:
        """Default peak of the learning rate: small where the weights hardly change."""
        return 5e-4 if self.bits is not None and self.bits >= 4 else 2e-3


def scheme_named(name: str) -> Scheme:
    """The scheme of a name; UsageError when there is none."""
    if name == _INT8:
        return Scheme()
    found = _NAME.fullmatch(name)
    if found is None:
        raise UsageError(f"unknown scheme {name!r}; expected one like: {EXAMPLES}")
    kind, number = found[1], int(found[2])
    if kind == "bits":
        if number not in BITS:
            raise UsageError(f"scheme {name!r}: {number} bits per weight; expected one of: {', '.join(map(str, BITS))}")
        return Scheme(bits=number)
    if number not in KEPT_PERCENT:
        raise UsageError(
            f"scheme {name!r}: {number} % of the multiply-accumulates; expected {KEPT_PERCENT[0]} to {KEPT_PERCENT[-1]}"
        )
    return Scheme(kept_macs_frac=number / 100)
