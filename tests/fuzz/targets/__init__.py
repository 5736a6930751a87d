"""One module for each part that reads bytes of a peer. See ``tests.fuzz.target``."""
