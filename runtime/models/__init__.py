"""Branchy models: stages, families, folding, description and training."""
