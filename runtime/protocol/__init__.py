"""The protocol between device and MEC: messages and state machines, without I/O."""
