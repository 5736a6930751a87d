"""Options that several commands share. What the configuration tree knows keeps its sentence from there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtime.config.settings import settings

_SENTENCES = {setting.flag: setting.sentence for setting in settings("workload", "source", "privacy", "emulation")}

WorkloadName = Annotated[str, typer.Option("--workload", help=_SENTENCES["--workload"])]
BundleDir = Annotated[Path | None, typer.Option("--bundle", help=_SENTENCES["--bundle"])]
DecoderCode = Annotated[str | None, typer.Option("--decode", metavar="FILE:FUNCTION", help=_SENTENCES["--decode"])]
ScorerCode = Annotated[str | None, typer.Option("--scorer", metavar="FILE:FUNCTION", help=_SENTENCES["--scorer"])]
ProfileFile = Annotated[Path | None, typer.Option("--profile", help=_SENTENCES["--profile"])]
DataDir = Annotated[Path | None, typer.Option("--data", help=_SENTENCES["--data"])]
NoRawUpload = Annotated[bool, typer.Option("--no-raw-upload", help=_SENTENCES["--no-raw-upload"])]
HardwareEncoder = Annotated[bool, typer.Option("--hardware-encoder", help=_SENTENCES["--hardware-encoder"])]
Wide = Annotated[bool, typer.Option("--wide", help="Tables of 160 columns, with everything in them.")]
JsonOut = Annotated[str | None, typer.Option("--json", help="Write JSON to this file, or - for stdout.")]
