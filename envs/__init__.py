"""One Gymnasium environment over two backends: the twin (batched emulation) or live (real processes)."""
