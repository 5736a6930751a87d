"""Train an algorithm of stable-baselines3 on the emulated device, save it, and compare it with the greedy rule.
Run: python examples/train_sb3.py [PPO, A2C or DQN] [STEPS]; then: mecpilot evaluate --workload campus --sb3 FILE"""

import sys
from pathlib import Path

import stable_baselines3

import mecpilot


def train(algorithm: str, steps: int, path: Path, bundle: str = "campus", **scenario: object) -> dict[str, float]:
    """Mean utility per frame of the agent and of greedy, on traces that the agent did not learn from."""
    env = mecpilot.make_env(bundle, scenario=scenario, reward="expected")
    agent = getattr(stable_baselines3, algorithm)("MultiInputPolicy", env, seed=0, device="cpu")
    agent.learn(steps)
    agent.save(path)
    own = {algorithm: lambda costs: mecpilot.Sb3Controller(agent, costs)}
    report = mecpilot.compare(bundle, ["greedy"], own, scenario=scenario)
    return {name: figures["utility"]["mean"] for name, figures in report["controllers"].items()}


if __name__ == "__main__":
    algorithm = sys.argv[1] if len(sys.argv) > 1 else "PPO"
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    path = Path("runs", "agent.zip")  # git ignores runs/
    path.parent.mkdir(exist_ok=True)
    print(f"training {algorithm} for {steps} steps; 20000 steps take 2 to 8 minutes", file=sys.stderr)
    print(train(algorithm, steps, path, frames=100), f"saved as {path}")
