"""A controller of your own, compared with mecpilot's on the same episodes of the emulated device.
Run: python examples/own_controller.py"""

import numpy as np

import mecpilot


class FastestLink:
    """Sends the image while the uplink is fast, and answers on the device otherwise."""

    def __init__(self, costs: mecpilot.CostTable, megabits: float = 2.0) -> None:
        sides = np.array([decision.side for decision in costs.space.decisions])
        accuracy_per_second = costs.accuracy / (costs.head_s + 1e-3)
        self.local = int(np.where(sides == "device", accuracy_per_second, -np.inf).argmax())
        self.remote = int(np.where(sides == "MEC", costs.accuracy / costs.payload_bytes.clip(1), -np.inf).argmax())
        self.threshold_bps = megabits * 1e6

    def decide(self, state: mecpilot.SystemState) -> np.ndarray:
        """(B,) rows of the cost table. ``SystemState`` documents what is observed."""
        fast = state.link_up & (state.uplink_bps[:, 0] > self.threshold_bps)
        return np.where(fast, self.remote, self.local)


def compare(bundle: str = "campus", seeds: int = 1, **scenario: object) -> dict[str, float]:
    """Mean utility per frame. ``Device(bundle, controller=FastestLink)`` runs the same controller on real frames."""
    own = {"fastest-link": FastestLink}
    report = mecpilot.compare(bundle, ["greedy", "device-only"], own, seeds=seeds, scenario=scenario)
    return {name: figures["utility"]["mean"] for name, figures in report["controllers"].items()}


if __name__ == "__main__":
    for name, utility in compare().items():
        print(f"{name:<14} {utility:.4f}")
