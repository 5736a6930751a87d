"""What is learned: the policy (its network, the warm start, PPO), and the predictor of transfer times."""
