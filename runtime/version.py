"""The version of mecpilot, written here only. pyproject.toml and ``mecpilot.__version__`` read it."""

VERSION = "0.1.0"
