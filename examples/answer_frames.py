"""Answer frames of your own and call a function for each outcome, with the help of a MEC in another thread.
Run: python examples/answer_frames.py [VIDEO, image folder, camera number or URL; default: a drawn scene]"""

import sys
from collections.abc import Callable, Iterable, Iterator

import numpy as np

import mecpilot


def scene(frames: int) -> Iterator[np.ndarray]:
    """(576, 768, 3) pictures, blue-green-red, of a bright box that moves through a dark yard."""
    for number in range(frames):
        picture = np.full((576, 768, 3), 40, np.uint8)
        picture[250:350, 40 + 8 * number : 80 + 8 * number] = 200
        yield picture


def answer(source: str | Iterable[np.ndarray], on_outcome: Callable[[mecpilot.Outcome], None], frames: int) -> None:
    """A MEC on another machine is started there with `mecpilot mec`; give its endpoint as ``mec=``."""
    with mecpilot.MecServer("campus", bind="tcp://127.0.0.1:*").start() as server:
        slow = mecpilot.EmulationSection(slowdown=60)  # leave it out on a real device
        with mecpilot.Device("campus", mec=server.endpoint, fps=5, deadline_s=0.5, emulation=slow) as device:
            for outcome in device.run(source, frames=frames):
                on_outcome(outcome)


def show(outcome: mecpilot.Outcome) -> None:
    how = outcome.decision.label if outcome.decision else "not run"
    print(f"frame {outcome.frame}: {outcome.status} in {outcome.latency_ms:.0f} ms ({how}): {outcome.prediction}")


if __name__ == "__main__":
    answer(sys.argv[1] if len(sys.argv) > 1 else scene(20), show, frames=20)
