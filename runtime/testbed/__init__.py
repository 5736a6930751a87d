"""Substitutes for a network and other devices: generated traces, load generators, child processes."""
