"""Play one episode of the emulated device in Gymnasium with random decisions, and count how its frames ended.
Run: python examples/gym_rollout.py"""

from collections import Counter
from typing import Any

import gymnasium

import mecpilot  # noqa: F401 - the import registers mecpilot/Campus-v0 and mecpilot/Garments-v0


def rollout(name: str = "mecpilot/Campus-v0", seed: int = 0, **options: Any) -> tuple[float, Counter[str]]:
    """Total reward, and the number of decided frames per status."""
    env = gymnasium.make(name, **options)
    _, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    total, endings, over = 0.0, Counter[str](), False
    while not over:
        _, reward, _, over, info = env.step(env.action_space.sample())
        total += float(reward)
        endings[info["status"]] += 1
    env.close()
    return total, endings


if __name__ == "__main__":
    total, endings = rollout(scenario={"frames": 300, "fps": 10, "deadline_s": 0.2})
    print(f"utility {total:.1f} over 300 frames; decided frames: {dict(endings)}")
