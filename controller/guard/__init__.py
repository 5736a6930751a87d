"""Watches a learned policy while it serves, and lets a classical controller decide where it cannot be trusted."""
