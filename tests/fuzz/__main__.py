"""Fuzz all targets, or those that are named, for a time that they share: ``python -m tests.fuzz --seconds 600``.

Exit code 1 if an input was found that raises anything but ``RemoteProtocolError``, takes too long or too much memory;
the input is then in the folder ``found`` of ``--work``, and `python -m tests.fuzz TARGET --play FILE` repeats it. New
inputs that reach other code stay in ``--work`` for the next run; ``--keep`` puts the smallest of them into the corpus
of the repository.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.campaign import fuzz, keep
from tests.fuzz.target import TARGETS, play_file


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--work", type=Path, default=Path("runs/fuzz"), help="grown corpus, and what is found")
    parser.add_argument("--keep", action="store_true", help="put small inputs into tests/")
    parser.add_argument("--play", type=Path, help="run one input and show its error")
    options = parser.parse_args(argv)
    names = options.targets or list(TARGETS)
    if options.play:
        return play_file(names[0], options.play)
    found = 0
    for name in names:
        result = fuzz(name, options.seconds / len(names), options.work)
        print(result.line(), flush=True)
        found += result.found
        if options.keep and not result.found:
            print(f"{name}: the corpus has {keep(name, options.work)} inputs", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
