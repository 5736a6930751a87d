"""The device: one loop that answers every frame, on its own or with the MEC."""
