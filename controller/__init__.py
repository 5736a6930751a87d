"""The decision, pure: no socket, clock, torch or global. numpy only."""
