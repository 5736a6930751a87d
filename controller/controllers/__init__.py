"""The controllers: classical ones, the learned policy, the registry of names, tuning, and the shortlist."""
