"""What a device and a MEC read about their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from runtime.config.sections.fields import Section, Text, Texts, about


class SecuritySection(Section, frozen=True):
    """Who device and MEC are to each other: keys of `mecpilot keys`. Needed wherever the two are not one machine."""

    key: Annotated[
        Path | None,
        about("Secret key file of this device or MEC, NAME.key of `mecpilot keys new`.", "--key", show="camera-1.key"),
    ] = None
    mec_key: Annotated[
        Text | Texts | None,
        about(
            "Device: the public key of its MEC, 40 characters or the file that holds it; no other MEC is talked to. "
            "With several MECs one for each, in their order, or one for all.",
            "--mec-key",
            show="mec.pub",
        ),
    ] = None
    allow: Annotated[
        Path | None,
        about(
            "MEC: list of the devices that are admitted, read again whenever it changes; default: allowed.txt beside "
            "the key.",
            "--allow",
            show="allowed.txt",
        ),
    ] = None
    plain: Annotated[
        bool,
        about("Neither encryption nor keys, though the two are not one machine; prints a warning.", "--plain"),
    ] = False
