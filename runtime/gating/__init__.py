"""Gated early exits: confidence that is calibrated, what gates cost and save, and which answers are sure."""
