"""The learning algorithm: the policy network, the warm start that fits it first, and PPO after that."""
