"""Bandwidth traces: finding them in files and folders, and reading every format."""
