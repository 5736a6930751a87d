"""The process that libFuzzer runs in: ``python -m tests.fuzz.instrumented TARGET FOLDER OPTION...``.

It writes the seeds of the target to the folder first. The process that starts it cannot do that: a child inherits the
peak of its parent's memory, and what one input takes would not show.

The packages that read a peer's bytes are instrumented as they are imported, so they must not have been imported before.
Compiled functions are left out: numba cannot compile instrumented bytecode.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris


def main() -> None:
    name, folder, *options = sys.argv[1:]
    with atheris.instrument_imports(
        include=["runtime.protocol", "runtime.codecs", "runtime.mec", "controller.errors"],
        exclude=["runtime.codecs.signs.passes", "runtime.codecs.signs.compiled"],
    ):
        from tests.fuzz.target import player, seeds

        play = player(name)
    for number, data in enumerate(seeds(name)):
        (Path(folder) / f"seed-{number}").write_bytes(data)
    atheris.Setup([sys.argv[0], *options], play)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
