"""Learning: the network, PPO, and the warm start before it."""
