"""What is inferred, and with which models: device and MEC must agree on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from runtime.config.sections.fields import DEFAULT_WORKLOAD, Section, Text, about


class WorkloadSection(Section, frozen=True):
    """What is inferred, with which models. Device and MEC must agree on it."""

    name: Annotated[
        Text,
        about(
            "Workload: campus, garments, a registered name, the folder of an adopted bundle, or package.module:Class.",
            "--workload",
        ),
    ] = DEFAULT_WORKLOAD
    bundle: Annotated[
        Path | None, about("Directory of a bundle; default: the shipped one.", "--bundle", show="FOLDER")
    ] = None
    profile: Annotated[
        Path | None, about('Profile file, or "shipped"; default: this machine\'s, else shipped.', "--profile")
    ] = None
    decode: Annotated[
        Text | None,
        about("Decoder that you wrote, of an adopted bundle: file.py:function.", "--decode", show="FILE:FUNCTION"),
    ] = None
    scorer: Annotated[
        Text | None,
        about("Scorer that you wrote, of an adopted bundle: file.py:function.", "--scorer", show="FILE:FUNCTION"),
    ] = None
