"""Learning: the policy, PPO, its warm start, and what a training shows while it goes on."""
