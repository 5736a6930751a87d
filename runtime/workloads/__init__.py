"""Workloads: frames with truth, a task with a score, models and defaults; found by name."""
