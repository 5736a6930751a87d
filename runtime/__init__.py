"""Everything of mecpilot that has a socket, a process, a clock or weights."""
