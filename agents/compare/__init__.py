"""Comparing controllers on the same episodes: scenarios, tuning, metrics, tables and plots."""
