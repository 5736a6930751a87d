"""Read and write what was fitted for the codecs of one model: named arrays for each resolution, as safetensors.

The senders and receivers of stream codecs (`runtime.codecs.streams`) take the arrays of their resolution. An array that
serves all resolutions is stored once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from controller.errors import FailureError
from runtime.codecs.streams import Tables
from runtime.files.atomic import write_whole
from runtime.files.reading import read_bounded

MAX_TABLES_BYTES = 16 << 20


def save_codec_tables(path: Path, tables: Mapping[int, Tables]) -> None:
    """Write the tables, whose keys are resolutions in pixels. FailureError when they are larger than can be read."""
    named = {
        f"{px}/{name}": np.ascontiguousarray(array) for px, found in tables.items() for name, array in found.items()
    }
    data = save(named)
    if len(data) > MAX_TABLES_BYTES:
        raise FailureError(
            f"the codec tables {path.name} have {len(data)} bytes; expected at most {MAX_TABLES_BYTES}: "
            "fit smaller tables, or offer the codec at fewer resolutions"
        )
    write_whole(path, data, "codec tables", "choose another --out")


def load_codec_tables(path: Path) -> dict[int, Tables]:
    """What ``save_codec_tables`` wrote; FailureError when the file is not of that form."""
    try:
        stored = load(read_bounded(path, MAX_TABLES_BYTES))
        tables: dict[int, dict[str, np.ndarray]] = {}
        for key, array in stored.items():
            px, name = key.split("/", 1)
            tables.setdefault(int(px), {})[name] = array
    except (OSError, SafetensorError, ValueError) as error:
        raise FailureError(f"{path} does not hold codec tables: {error}") from None
    return dict(tables)
