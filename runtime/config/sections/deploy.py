"""Where a MEC keeps the releases that operators push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from runtime.config.sections.fields import Section, about


class DeploySection(Section, frozen=True):
    """Releases of bundles and policies that operators push to the MEC (docs/push.md)."""

    store: Annotated[
        Path | None,
        about("Folder for releases that operators push; default: none are taken.", "--store", show="FOLDER"),
    ] = None
    trust: Annotated[
        Path | None,
        about(
            "The root.json of `mecpilot deploy init`: releases must be signed by its keys. Needed for the first start "
            "with a store.",
            "--trust",
            show="root.json",
        ),
    ] = None
