"""What a target is: a module with ``SEEDS``, inputs that show it the way, and ``run``, which takes any bytes.

``run`` may raise ``RemoteProtocolError``, and nothing else. ``play`` also bounds what one input may take: processor
time, because the machine may be busy, and growth of the process.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from controller.errors import RemoteProtocolError

#: Name -> the package that it needs and that may be missing.
TARGETS = {
    "wire": "",
    "images": "",
    "tensors": "",
    "signs": "",
    "video": "av",
    "receivers": "av",
    "device_session": "",
    "mec_session": "",
}
CORPUS = Path(__file__).parent / "corpus"
#: The dearest legal input, a picture of full size, takes a hundredth of these.
MOST_CPU_S, MOST_GROWTH_BYTES = 2.0, 256 << 20


class CostlyInputError(AssertionError):
    """One input took too long or too much memory."""


def is_available(name: str) -> bool:
    """Whether the package that a target needs is installed."""
    return not TARGETS[name] or find_spec(TARGETS[name]) is not None


def player(name: str) -> Callable[[bytes], None]:
    """Runs one input after another; raises what no input may cause."""
    run: Callable[[bytes], None] = import_module(f"tests.fuzz.targets.{name}").run

    def play(data: bytes) -> None:
        began_s, before_bytes = time.process_time(), _most_resident_bytes()
        with contextlib.suppress(RemoteProtocolError):
            run(data)
        if (took_s := time.process_time() - began_s) > MOST_CPU_S:
            raise CostlyInputError(f"{took_s:.1f} s for {len(data)} bytes; expected at most {MOST_CPU_S:g} s")
        if (grown := _most_resident_bytes() - before_bytes) > MOST_GROWTH_BYTES:
            raise CostlyInputError(f"{grown >> 20} MiB for {len(data)} bytes; expected {MOST_GROWTH_BYTES >> 20} MiB")

    return play


def seeds(name: str) -> list[bytes]:
    """Inputs that the target itself makes."""
    return list(import_module(f"tests.fuzz.targets.{name}").SEEDS)


def kept(name: str) -> list[bytes]:
    """Inputs of earlier runs."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def play_file(name: str, path: Path) -> int:
    """Run one input, so that its error is seen."""
    player(name)(path.read_bytes())
    print("nothing but RemoteProtocolError")
    return 0


def _most_resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
