"""The learner: the PPO policy, its training, export, evaluation and the tuning of its opponents. stable-baselines3."""
