"""The configuration: one tree of values, the TOML file that sets them, and the flags that override the file."""
