"""Comparing controllers: the same episodes for all, tuned opponents, tables and plots."""
