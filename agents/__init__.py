"""Learning and comparing: trains the PPO policy (stable-baselines3), tunes and evaluates controllers, runs the demo."""
