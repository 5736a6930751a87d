"""The sections of the configuration tree: one class for each table of ``mecpilot.toml``."""
