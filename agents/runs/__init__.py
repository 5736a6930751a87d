"""Training runs on disk: folders, checkpoints, locks, interruption and export to policy files."""
