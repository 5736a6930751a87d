"""A training run from its first step to its last, and what it shows while it goes on."""
