"""Workloads: sources of frames with a truth and a score."""
