"""What stands in for a network and other devices: traces, load generators, child processes."""
