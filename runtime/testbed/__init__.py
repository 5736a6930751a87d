"""Substitutes for a network and other devices: generated traces, load generators, a proxy, child processes."""
