"""The device: one loop that answers every frame, locally or with the MEC."""
