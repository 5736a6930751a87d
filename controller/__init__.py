"""The decision, as pure functions and small classes over numpy: no socket, clock, torch or global state."""
