"""Tensors of -1 and +1, coded against an earlier answered request with a static context model."""

from __future__ import annotations

from runtime.codecs.signs.codec import Signs
from runtime.codecs.signs.fitting import fit_tables

__all__ = ["Signs", "fit_tables"]
