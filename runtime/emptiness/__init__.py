"""Knowing that a frame is empty: a background, and a tiny network that looks at what differs from it."""
