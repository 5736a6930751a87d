"""Measuring and storing the times of segments on this machine."""
